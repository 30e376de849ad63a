"""Who is measured: versions, settings, sizes of work, what their tables say; and the processes they run in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from bench.scene import ROOT, connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from bench.scene import Scene

SCRIPTS = Path(__file__).parent / "scripts"
ENVIRONMENTS = ROOT / ".bench"
WRITER = "peers_writer"
"""A role whose commits do not wait for the flush."""
EFFECTS = """
CREATE TABLE public.effects (
    id bigint NOT NULL, worker integer NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp())
"""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A package, and how it is measured."""

    name: str
    requirements: tuple[str, ...]
    """Nothing: it runs in this environment."""
    settings: str
    sizes: dict[str, int]
    """Events of a turn, by mode: a second or two of work."""
    unfinished: str
    """Is there work left?"""
    held: str = ""
    """Which events has the worker $1 taken, and not finished? Nothing: workers do not divide the work."""

    @property
    def python(self) -> Path:
        """The interpreter that runs its script."""
        return self._environment / "bin" / "python" if self.requirements else Path(sys.executable)

    @property
    def _environment(self) -> Path:
        return ENVIRONMENTS / self.name

    def install(self) -> None:
        """Make its virtual environment, unless it is there with the same versions."""
        stamp = self._environment / "requirements.txt"
        wanted = "\n".join(self.requirements)
        if not wanted or (stamp.exists() and stamp.read_text() == wanted):
            return
        print(f"… installing {self.name}", file=sys.stderr, flush=True)
        venv.create(self._environment, clear=True, with_pip=True)
        subprocess.run([str(self.python), "-m", "pip", "install", "--quiet", *self.requirements], check=True)  # noqa: S603
        stamp.write_text(wanted)


OURS = "reactive_orch"
CONTESTANTS = [
    Contestant(
        OURS,
        (),
        "defaults (batches of up to 100, 64 partitions), without uvloop",
        {"noop": 40_000, "insert": 8_000, "insert_many": 30_000},
        """SELECT EXISTS (SELECT FROM reactive_orch.event_log e JOIN reactive_orch.checkpoints c USING (partition)
                          WHERE e.global_position > c.position)""",
        """SELECT convert_from(e.payload, 'UTF8')::bigint FROM reactive_orch.event_log e
           JOIN reactive_orch.checkpoints c USING (partition) JOIN reactive_orch.assignments a USING (projection)
           WHERE e.global_position > c.position AND a.owners[e.partition + 1] = $1::text::integer""",
    ),
    Contestant(
        "pgqueuer",
        ("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
        "asyncpg, a connection of its own for the worker, `pgq autovac`, durable tables, uvloop as its command line "
        "has it, batches of 100 (its default is 10, to be raised for short jobs), heartbeat time-out 30 s (default)",
        {"noop": 10_000, "insert": 3_000},
        "SELECT EXISTS (SELECT FROM pgqueuer)",
        """SELECT convert_from(payload, 'UTF8')::bigint FROM pgqueuer
           WHERE status = 'picked' AND queue_manager_id = $1::text::uuid""",
    ),
    Contestant(
        "procrastinate",
        ("procrastinate==3.10.0", "psycopg[binary]==3.3.9", "psycopg-pool==3.3.3"),
        "10 tasks side by side (its guide shows 30: slower here) and a pool of one connection more, LISTEN (default), stalled "
        "jobs retried by a periodic task as its guide says, though every 5 s instead of every 10 minutes, after 30 s without heartbeat (default)",
        {"noop": 800, "insert": 800},
        "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE task_name = 'order_placed' AND status IN ('todo', 'doing'))",
        """SELECT (args->>'n')::bigint FROM procrastinate_jobs
           WHERE task_name = 'order_placed' AND status = 'doing' AND worker_id = $1::text::bigint""",
    ),
    Contestant(
        "eventsourcing",
        ("eventsourcing[postgres]==9.5.6", "psycopg[binary]==3.3.9", "psycopg-pool==3.3.3"),
        "defaults: its PostgreSQL recorder, a ProjectionRunner whose view records the position in the same transaction",
        {"noop": 1_500, "insert": 1_500},
        """SELECT (SELECT max(notification_id) FROM orders_events) IS DISTINCT FROM
                  (SELECT max(notification_id) FROM orders_tracking)""",
    ),
]


class Process:
    """A contestant's script: asked for one thing after the other. An async context manager."""

    def __init__(self, contestant: Contestant, url: str) -> None:
        self._command = (str(contestant.python), str(SCRIPTS / "serve.py"), f"run_{contestant.name}", url)

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26
        )
        try:
            await self._answer()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def ask(self, what: str, **arguments: Any) -> Any:
        """Ask, and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, arguments]).encode() + b"\n")
        async with asyncio.timeout(120):
            return await self._answer()

    async def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            msg = f"{self._command[2]} ended with exit code {await self.process.wait()}"
            raise RuntimeError(msg)
        return json.loads(line)


class Field:
    """The server, with a template database for each contestant."""

    def __init__(self, scene: Scene, contestants: Sequence[Contestant]) -> None:
        self.scene = scene
        self.contestants = contestants

    async def prepare(self) -> None:
        """Install what is missing and make the templates."""
        async with connected(self.scene.server.url()) as connection:
            await connection.execute(
                f"CREATE ROLE {WRITER} LOGIN SUPERUSER; ALTER ROLE {WRITER} SET synchronous_commit = off"
            )
        for one in self.contestants:
            one.install()
            url = self.scene.server.create_database(f"peers_{one.name}")
            async with connected(url) as connection:
                await connection.execute(EFFECTS)
            async with Process(one, url) as process:
                await process.ask("install")

    @contextlib.asynccontextmanager
    async def database(self, one: Contestant) -> AsyncIterator[str]:
        """Have a fresh database for the block."""
        url = self.scene.server.clone_database(f"peers_{one.name}", f"peers_turn_{one.name}")
        try:
            yield url
        finally:
            self.scene.drop(url)


def impatient(url: str) -> str:
    """Return the URL for a writer whose commits do not wait for the flush."""
    return url.replace("//postgres@", f"//{WRITER}@")
