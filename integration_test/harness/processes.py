"""Processes that are started, followed and ended: workers as their users start them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urljoin

import aiohttp

from integration_test.harness import projections as test_projections
from integration_test.harness.waiting import TIMEOUT_S, wait_until

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]

ACCIDENT = "Traceback|Exception ignored|never retrieved|never awaited|Task was destroyed|Unclosed"
"""What no worker's log may hold, whatever happens to it: an error or a leak that nobody took care of."""


def worker_command(
    database_url: str, replica_set: str, projections: Sequence[str], *options: str, module: str = "reactive_orch"
) -> list[str]:
    """Return the command of a worker. `projections`: names from `projections.py`, or MODULE[:ATTR] with a dot."""
    modules = [p if "." in p else f"integration_test.harness.projections:{p}" for p in projections]
    return [
        *(sys.executable, "-m", module, "--database-url", database_url, "--replica-set", replica_set),
        *(word for each in modules for word in ("--projection", each)),
        *("--http", "127.0.0.1:0", *options),
    ]


class Process:
    """A process and what it has said. `start` it, and `end` it in any case."""

    def __init__(self, name: str, command: Sequence[str], env: Mapping[str, str], cwd: Path = ROOT) -> None:
        """Prepare. `env`: variables besides those of the tests; `cwd`: where Python finds its modules first."""
        self.name = name
        self.log: list[str] = []
        """Its lines on standard output and standard error, in the order in which they arrived."""
        self._command = command
        self._env = {**os.environ, **env}
        self._cwd = cwd
        self._heard = asyncio.Event()

    async def start(self) -> Self:
        """Start it; its log is read from now on."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._cwd,
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C ends the tests, and they end the processes
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.hear(line.decode(errors="replace").rstrip("\n"))
            self._heard.set()
        self._heard.set()

    def hear(self, line: str) -> None:
        """Take note of a line."""
        self.log.append(line)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def code(self) -> int | None:
        """The exit code; negative: the signal that killed it; None while it runs."""
        return self._process.returncode

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.code is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal. Raises ProcessLookupError when it has ended."""
        self._process.send_signal(number)

    async def wait(self, timeout_s: float = TIMEOUT_S) -> int:
        """Wait for its end and return its exit code. Raises TimeoutError with its log."""
        try:
            async with asyncio.timeout(timeout_s):
                code = await self._process.wait()
                await self._reading
        except TimeoutError:
            msg = f"{self.name} still runs after {timeout_s:g} s:\n{self.tail()}"
            raise TimeoutError(msg) from None
        return code

    async def end(self) -> None:
        """Kill it, whatever its state."""
        if self.running:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def said(self, pattern: str, timeout_s: float = TIMEOUT_S, times: int = 1) -> re.Match[str]:
        """Wait for so many lines that match, and return the last. Raises AssertionError with its log."""
        found: list[re.Match[str]] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while len(found) < times and not self._reading.done():
                    self._heard.clear()
                    found = self._matches(pattern)
                    if len(found) < times:
                        await self._heard.wait()
        found = self._matches(pattern)
        assert len(found) >= times, f"{self.name} never said {pattern!r} {times} times ({self.code}):\n{self.tail()}"
        return found[times - 1]

    def _matches(self, pattern: str) -> list[re.Match[str]]:
        return [match for line in self.log if (match := re.search(pattern, line))]

    def tail(self, lines: int = 1000) -> str:
        """Return its last words."""
        return "\n".join(f"    {line}" for line in self.log[-lines:])


class WorkerProcess(Process):
    """A worker as its users start it. An async context manager; killed at its end."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a command line says
        self,
        database_url: str,
        name: str,
        replica_set: str = "test",
        projections: Sequence[str] = ("handled",),
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path = ROOT,
        module: str = "reactive_orch",
        through: Sequence[str] = (),
    ) -> None:
        """Prepare; entering starts it. `cwd`: the root of the code that it runs; `through`: a program that runs it."""
        told = ("--log-format", "text", *options)
        command = [*through, *worker_command(database_url, replica_set, projections, *told, module=module)]
        super().__init__(name, command, {**test_projections.variables(name, replica_set), **(env or {})}, cwd)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await self.start()
            stack.push_async_callback(self.end)
            self._http = await stack.enter_async_context(aiohttp.ClientSession())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()
        if error[0] is None:
            accidents = [line for line in self.log if _ACCIDENT.search(line)]
            assert not accidents, "\n".join([f"worker {self.name} had accidents:", *self.log])
        else:
            # Beside the failure, as pytest shows it.
            lines = [f"----- {self.name}, exit code {self.code}", *self.log, ""]
            sys.stderr.write("\n".join(lines))

    @property
    def health_url(self) -> str | None:
        """Where its health is, once it has said so."""
        return next((match[1] for match in self._matches(r"health (http://[^\s\"]+)")), None)

    async def ready(self, timeout_s: float = TIMEOUT_S) -> Self:
        """Wait until it serves or stands by."""

        async def well() -> bool:
            self.assert_running()
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                if self.health_url is None:
                    return False
                status, body = await self._get()
                return status == 200 and body["status"] not in {"starting", "joining"}
            return False

        await wait_until(well, timeout_s, f"worker {self.name} is ready")
        return self

    def assert_running(self) -> None:
        """Raise AssertionError with its log if it has ended."""
        assert self.running, f"worker {self.name} ended with exit code {self.code}:\n{self.tail()}"

    async def health(self, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Return the body of /healthz, whatever its status."""
        return (await self._get(timeout_s))[1]

    async def probe(self, page: str) -> int:
        """Return the status of `livez` or `readyz`."""
        return (await self._get(page=page))[0]

    async def _get(self, timeout_s: float = TIMEOUT_S, page: str = "healthz") -> tuple[int, dict[str, Any]]:
        assert self.health_url is not None, f"worker {self.name} has not said where its health is"
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        async with self._http.get(urljoin(self.health_url, page), timeout=timeout) as response:
            return response.status, await response.json()

    async def member(self) -> int:
        """Return the id under which it is a member now."""
        return int((await self.health())["worker"])

    async def stop(self, timeout_s: float = TIMEOUT_S) -> None:
        """Send SIGTERM and expect a clean end."""
        self.send(signal.SIGTERM)
        code = await self.wait(timeout_s)
        assert code == 0, f"worker {self.name}: exit code {code}\n{self.tail()}"


_ACCIDENT = re.compile(
    f"{ACCIDENT}|Warning:|unexpected |"
    "Resetting connection"  # asyncpg's, for a transaction that was not ended as it expects
)
"""In a test's own scenario nothing is unexpected."""


def partitions_of(health: Mapping[str, Any]) -> dict[str, int]:
    """Return projection → how many partitions the worker holds."""
    return dict(health["partitions"])


async def until_terminated(work: Coroutine[Any, Any, T]) -> T:
    """Do the work; SIGTERM ends it in this process as Ctrl-C does, with its workers and its server."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work
