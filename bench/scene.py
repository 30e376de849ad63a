"""Servers, databases and processes to measure with."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncpg

from integration_test.harness.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
UVLOOP = "uvloop==0.23.0"

_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "max_connections": "400",
    "log_min_messages": "warning",
}


class Server(Cluster):
    """A temporary server that flushes to the disk, as those of the tests do not."""

    def _find_place(self) -> Path:
        return self.directory

    def _make(self) -> None:
        super()._make()
        settings = dict(_SETTINGS)
        if self.version == "15":  # the wheel of 18 comes without extensions
            settings["shared_preload_libraries"] = "pg_stat_statements"
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def socket_url(self, url: str) -> str:
        """Return the URL of the same database over the Unix socket."""
        return f"postgresql://postgres@/{url.rpartition('/')[2]}?host={self.directory}&port={self.port}"

    @property
    def programs(self) -> Path:
        """Where pgbench is."""
        return self._programs


@dataclass
class Scene:
    """A server, and what was asked for."""

    server: Server
    repeat: int = 5
    """How often each pair is measured."""
    scale: float = 1.0
    """Of the number of events and of durations: smaller for a quick look."""
    events: int = 1_000_000
    minutes: float = 1.0
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _template: str = ""

    def scaled(self, number: float, least: int = 1) -> int:
        """Return a count times the scale."""
        return max(int(number * self.scale), least)

    def database(self, *, events: int = 0) -> str:
        """Return the URL of a fresh, migrated database with this many events in its log."""
        if not self._template:
            self._template = "bench_template"
            migrated(self.server.create_database(self._template))
        template = self._template if not events else self._filled(events)
        return self.server.clone_database(template, f"bench_{next(self._numbers)}")

    def _filled(self, events: int) -> str:
        name = f"bench_filled_{events}"
        if name not in self._filled_names:
            self._filled_names.add(name)
            url = self.server.clone_database(self._template, name)
            subprocess.run([sys.executable, "-m", "bench.fill", url, str(events)], check=True, cwd=ROOT)  # noqa: S603
        return name

    _filled_names: set[str] = field(default_factory=set)

    def drop(self, url: str) -> None:
        """Drop a database."""
        self.server.drop_database(url.rpartition("/")[2])


def loops() -> dict[str, dict[str, str]]:
    """Return the environments of processes on asyncio's own loop and on uvloop, which is kept beside what is installed."""
    target = ROOT / ".bench" / "uvloop"
    if not target.exists():
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([*pip, "--target", str(target), UVLOOP], check=True)  # noqa: S603
    return {"": {}, "uvloop": {"UVLOOP": "1", "PYTHONPATH": str(target)}}


def migrated(url: str, *options: str) -> str:
    """Create the schema, with options of `migrate`, and what the measurements write to."""
    subprocess.run(  # noqa: S603
        [sys.executable, "-m", "reactive_orch", "migrate", "--database-url", url, *options],
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
    )
    subprocess.run([sys.executable, "-m", "bench.fill", url, "0"], check=True, cwd=ROOT)  # noqa: S603
    return url


@contextlib.asynccontextmanager
async def connected(url: str, **settings: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """Connect for the block."""
    connection = await asyncpg.connect(url, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


class Child:
    """A process of `bench.processes` in a role; answers questions, one JSON object a line. An async context manager."""

    def __init__(self, role: str, env: Mapping[str, str] | None = None, **arguments: Any) -> None:
        """Prepare; entering starts it."""
        self._role = role
        self._arguments = arguments
        self._env = {**os.environ, **(env or {})}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "bench.processes", self._role, json.dumps(self._arguments)),
            cwd=ROOT,
            env=self._env,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 28,
        )
        try:
            await self._answer()
        except BaseException:
            self._process.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._process.kill()

    async def ask(self, what: str, timeout_s: float = 300.0, **arguments: Any) -> Any:
        """Ask, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([what, arguments]).encode() + b"\n")
        async with asyncio.timeout(timeout_s):
            return await self._answer()

    async def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            msg = f"{self._role} ended with exit code {await self._process.wait()}"
            raise RuntimeError(msg)
        return json.loads(line)


@contextlib.asynccontextmanager
async def command_line(
    url: str, replica_set: str, projections: Sequence[str], *options: str
) -> AsyncIterator[CliWorker]:
    """Run a worker as its users do, for the block."""
    started = CliWorker(
        await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "reactive_orch", "--database-url", url, "--replica-set", replica_set, "--http", "127.0.0.1:0"),
            *(word for name in projections for word in ("--projection", f"bench.projections:{name}")),
            *options,
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    )
    try:
        yield started
    finally:
        await started.end()


class CliWorker:
    """A worker process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading: asyncio.Task[None] | None = None

    async def said(self, what: str, timeout_s: float = 60.0) -> str:
        """Wait for a line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(timeout_s):
            async for line in self.process.stdout:
                self.lines.append(line.decode(errors="replace").rstrip())
                if what in self.lines[-1]:
                    self._reading = asyncio.create_task(self._drain())
                    return self.lines[-1]
        raise RuntimeError("\n".join(self.lines))

    async def _drain(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip())

    async def end(self) -> None:
        """Kill it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        if self._reading is not None:
            await self._reading
