"""What happens to the workers from outside. Each fault is a coroutine that heals itself and returns."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import TYPE_CHECKING

import asyncpg

from integration_test.harness import poison
from integration_test.harness.arena import REPLICA_SET
from integration_test.harness.connections import LOST, connected
from integration_test.harness.recorded import FAILING, LETHAL
from reactive_orch.errors import Unavailable

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable

    from integration_test.harness.arena import Arena, Victim
    from integration_test.harness.proxy import Proxy

KINDS = ("membership", "watch", "tail", "coordination", "work")
RESTART_EVERY_S = 8.0
"""At most one restart of the server in this time: between two the workers must come back to work."""


class Faults:
    """The faults that can strike an arena. The first `spared` workers are never ended: their memory is watched."""

    def __init__(self, arena: Arena, proxy: Proxy, *, spared: int = 1) -> None:
        self._arena = arena
        self._proxy = proxy
        self._spared = spared
        self._restarted_at = 0.0
        self._dropping = asyncio.Lock()

    def pick(self, rng: random.Random) -> tuple[str, Callable[[random.Random], Awaitable[None]]]:
        """Return a fault by chance."""
        names = [name for name in _WEIGHTS if name != "poison_lethally" or LETHAL in self._arena.projections]
        name = rng.choices(names, [_WEIGHTS[n] for n in names])[0]
        return name, getattr(self, name)

    def _victims(self, rng: random.Random, count: int = 1, *, ending: bool = False) -> list[Victim]:
        candidates = [p for p in self._arena.living if not p.frozen and not p.doomed]
        if ending:
            candidates = [p for p in candidates if p not in self._arena.processes[: self._spared]]
        return rng.sample(candidates, min(count, len(candidates)))

    async def kill(self, rng: random.Random) -> None:
        """SIGKILL."""
        for victim in self._victims(rng, ending=True):
            victim.send(signal.SIGKILL)

    async def kill_several(self, rng: random.Random) -> None:
        """SIGKILL to two or three at the same moment: a watcher and the one it watches, perhaps."""
        for victim in self._victims(rng, rng.randint(2, 3), ending=True):
            victim.send(signal.SIGKILL)

    async def freeze_briefly(self, rng: random.Random) -> None:
        """SIGSTOP, and SIGCONT before it counts as stale."""
        await self._freeze(rng, self._arena.pace.stale_s * rng.uniform(0.1, 0.5))

    async def freeze_long(self, rng: random.Random) -> None:
        """SIGSTOP until the others have gone on without it, then SIGCONT."""
        await self._freeze(rng, self._arena.pace.stale_s * rng.uniform(1.3, 2.5))

    async def _freeze(self, rng: random.Random, seconds: float) -> None:
        victims = self._victims(rng)
        for victim in victims:
            victim.send(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        for victim in victims:
            victim.send(signal.SIGCONT)

    async def stop_in_good_order(self, rng: random.Random) -> None:
        """SIGTERM."""
        self._arena.hide()
        for victim in self._victims(rng, ending=True):
            victim.send(signal.SIGTERM)

    async def stop_at_once(self, rng: random.Random) -> None:
        """SIGTERM twice."""
        self._arena.hide()
        for victim in self._victims(rng, ending=True):
            victim.send(signal.SIGTERM)
            await asyncio.sleep(rng.uniform(0, 0.02))
            victim.send(signal.SIGTERM)

    async def join_and_leave(self, rng: random.Random) -> None:
        """One more worker for a while."""
        self._arena.hide()
        guest = await self._arena.start()
        await asyncio.sleep(rng.uniform(0.5, 3))
        guest.send(signal.SIGTERM)

    async def end_connection(self, rng: random.Random) -> None:
        """pg_terminate_backend of one connection of some kind."""
        await self._arena.ask(_END, f"reactive_orch:{rng.choice(KINDS)}:%", 1)

    async def end_connections_of_a_kind(self, rng: random.Random) -> None:
        """The same for all workers' connections of a kind at once."""
        await self._arena.ask(_END, f"reactive_orch:{rng.choice(KINDS)}:%", 1000)

    async def end_connections_of_a_worker(self, rng: random.Random) -> None:
        """The same for all connections of one worker."""
        for victim in self._victims(rng):
            await self._arena.ask(_END, f"reactive\\_orch:%:{victim.pid}:%", 1000)

    async def restart_server(self, rng: random.Random) -> None:
        """PostgreSQL crashes and recovers; or is restarted in good order."""
        if time.monotonic() - self._restarted_at < RESTART_EVERY_S:
            return
        self._restarted_at = time.monotonic()
        self._arena.hide()
        await asyncio.to_thread(self._arena.cluster.restart, rng.choice(("immediate", "fast")))

    async def swallow(self, rng: random.Random) -> None:
        """The network of one worker delivers nothing; afterwards it delivers late, or resets."""
        self._proxy.swallow(rng.choice(("", "", *KINDS)))
        await asyncio.sleep(rng.uniform(0.3, 2.5) * self._arena.pace.stale_s)
        if rng.random() < 0.5:
            self._proxy.cut()
        self._proxy.flow()

    async def cut(self, rng: random.Random) -> None:
        """The network of one worker resets all connections."""
        del rng
        self._proxy.cut()

    async def lock_replica_set(self, rng: random.Random) -> None:
        """Somebody holds the row that every change needs, at times for longer than the workers' lock time-out."""
        await self._hold(_LOCK_REPLICA_SET, rng.uniform(0.2, 3.0), REPLICA_SET)

    async def lock_checkpoints(self, rng: random.Random) -> None:
        """Somebody holds some checkpoints."""
        await self._hold(_LOCK_CHECKPOINTS, rng.uniform(0.2, 3.0), REPLICA_SET, rng.randint(1, 12))

    async def lock_members(self, rng: random.Random) -> None:
        """Somebody holds the members' rows, in the way of heartbeats."""
        await self._hold("SELECT 1 FROM reactive_orch.members FOR UPDATE", rng.uniform(0.2, 1.0))

    async def _hold(self, sql: str, seconds: float, *args: object) -> None:
        with contextlib.suppress(*LOST, asyncpg.LockNotAvailableError):  # who has not got it by then holds nothing
            async with connected(self._arena.url) as connection, connection.transaction():
                await connection.execute("SET LOCAL lock_timeout = '3s'")
                await connection.fetch(sql, *args)
                await asyncio.sleep(seconds)

    async def keep_and_go_on(self, rng: random.Random) -> None:
        """An operator rewinds a projection to where it is: every memory of its checkpoints is invalid."""
        await self._arena.ask(
            "SELECT reactive_orch.rewind(p.replica_set, p.name, NULL) FROM reactive_orch.projections p "
            "WHERE p.replica_set = $1 AND p.name = $2",  # which nobody may have registered yet
            REPLICA_SET,
            rng.choice(self._arena.projections),
        )

    async def pause_and_resume(self, rng: random.Random) -> None:
        """People pause a projection for a while."""
        of = (REPLICA_SET, rng.choice(self._arena.projections))
        await self._arena.ask(_SET_STATE, *of, "paused")
        await asyncio.sleep(rng.uniform(0.2, 3.0))
        await self._arena.ask(_SET_STATE, *of, "running")

    async def poison_keys(self, rng: random.Random) -> None:
        """Some events will fail in every attempt."""
        with contextlib.suppress(*LOST, Unavailable):
            await poison.poison(self._arena, rng, rng.randint(1, 6))

    async def ask_of_keys(self, rng: random.Random) -> None:
        """People ask for something to be done about each failing key; of a lethal one, too, that it be tried again."""
        self._arena.hide()
        with contextlib.suppress(*LOST, Unavailable):
            await poison.ask(self._arena, rng, ["retry", "skip", "discard"], of=FAILING)

    async def poison_lethally(self, rng: random.Random) -> None:
        """An event will end each process that handles it."""
        with contextlib.suppress(*LOST, Unavailable):
            await poison.poison_lethally(self._arena, rng)

    async def forge_notifications(self, rng: random.Random) -> None:
        """Anybody may NOTIFY: nonsense, in great number."""
        channels = ("reactive_orch_events", "reactive_orch_generations")
        with contextlib.suppress(*LOST):
            async with connected(self._arena.url) as connection:
                for n in range(rng.randint(100, 500)):
                    payload = rng.choice(("", REPLICA_SET, "{}", "999999", f"nonsense {n}", "x" * 7000))
                    await connection.execute("SELECT pg_notify($1, $2)", rng.choice(channels), payload)

    async def drop_notifications(self, rng: random.Random) -> None:
        """No notification leaves the database for a while."""
        async with self._dropping:
            sql = "SELECT pg_get_functiondef('reactive_orch.notify(text, text)'::regprocedure)"
            original = await self._arena.value(sql)
            await self._arena.ask(_SILENT)
            await asyncio.sleep(rng.uniform(0.5, 2.5))
            await self._arena.ask(original)


_WEIGHTS = {
    "kill": 4,
    "kill_several": 1,
    "freeze_briefly": 2,
    "freeze_long": 2,
    "stop_in_good_order": 2,
    "stop_at_once": 1,
    "join_and_leave": 1,
    "end_connection": 5,
    "end_connections_of_a_kind": 1,
    "end_connections_of_a_worker": 1,
    "restart_server": 2,
    "swallow": 2,
    "cut": 1,
    "lock_replica_set": 1,
    "lock_checkpoints": 2,
    "lock_members": 1,
    "keep_and_go_on": 1,
    "pause_and_resume": 1,
    "poison_keys": 2,
    "ask_of_keys": 2,
    "poison_lethally": 1,
    "forge_notifications": 1,
    "drop_notifications": 1,
}

_SET_STATE = """
SELECT reactive_orch.set_projection_state(p.replica_set, p.name, $3, '', 'chaos')
FROM reactive_orch.projections p WHERE p.replica_set = $1 AND p.name = $2
"""
_END = """
SELECT pg_terminate_backend(a.pid) FROM (
    SELECT a.pid FROM pg_stat_activity a WHERE a.application_name LIKE $1 AND a.datname = current_database()
    ORDER BY random() LIMIT $2) a
"""
_LOCK_REPLICA_SET = "SELECT 1 FROM reactive_orch.replica_sets r WHERE r.name = $1 FOR NO KEY UPDATE"
_LOCK_CHECKPOINTS = """
SELECT 1 FROM reactive_orch.checkpoints c WHERE c.replica_set = $1
ORDER BY c.projection, c.partition LIMIT $2 FOR UPDATE
"""
_SILENT = """
CREATE OR REPLACE FUNCTION reactive_orch.notify(channel text, payload text) RETURNS void
LANGUAGE sql AS $$ SELECT $$
"""
