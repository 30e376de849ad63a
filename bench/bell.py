"""Whether the bell lets go of the writers: 1, 8, 32 of them times 1, 4, 8 readers, from a slow start each time.

Every turn begins with the bell armed and all readers asleep; then all writers start at once, as fast as they can. A
stable slow state would be one in which the bell throttles the writers and the throttled writers keep the bell armed.
Ratios are to the same writers with no trigger and no reader, turn by turn, after the first half second; `always armed`
is what a trigger that never stops ringing would leave of that, even with nobody to hear it. The readers are workers of
this package in one or two processes; on a machine with few cores they take theirs from the writers (`append` tells).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, spread, table
from bench.scene import Child, connected
from bench.writers import FLUSHES, appending, drained, flush_ms, set_flush
from reactive_orch.core.waking import DISARM_ABOVE_PER_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from bench.scene import Scene

WRITERS = (1, 8, 32)
READERS = (1, 4, 8)
REPEAT_MOST = 3
TURN_S, SLOW_START_S = 1.0, 0.5
LOOK_EVERY_S = 0.02
ARMED_WITHIN_S = 20.0
STATE = (
    "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('reactive_orch.events', 'global_position')), 0),"
    " coalesce(pg_sequence_last_value('reactive_orch.bell'), 9e18::bigint)"
    " > extract(epoch FROM clock_timestamp()) * 1000"
)


@dataclass(frozen=True, slots=True)
class Look:
    """The log and the bell at one moment."""

    at_s: float
    head: int
    armed: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """What was seen from the first append on, and when the bell was armed again after the last."""

    seen: Sequence[Look]
    armed_again_s: float

    @property
    def rate(self) -> float:
        """Transactions per second, the slow start left out."""
        late = [look for look in self.seen if look.at_s - self.seen[0].at_s >= SLOW_START_S]
        return (late[-1].head - late[0].head) / (late[-1].at_s - late[0].at_s)

    @property
    def armed(self) -> float:
        """The share of the time in which writers rang."""
        return sum(look.armed for look in self.seen) / len(self.seen)

    @property
    def disarmed_after_s(self) -> float | None:
        """How long after the first append the bell was first seen disarmed."""
        return next((look.at_s - self.seen[0].at_s for look in self.seen if not look.armed), None)


async def measure(scene: Scene) -> Section:
    """Take turns, at two flush times."""
    parts, goals = [(__doc__ or "").split("\n\n", 1)[1].strip()], []
    async with _databases(scene) as urls:
        for delay, shown in FLUSHES:
            await set_flush(scene, delay)
            alone_ms = await flush_ms(scene)
            turns = {writers: await _turns(scene, urls, writers) for writers in WRITERS}
            parts.append(f"With {shown} (a commit alone: {alone_ms:.2f} ms), shares of the time armed in brackets:")
            parts += [_throughput(turns), _slow_start(turns)]
            goals.append(_goal(shown, turns))
    await set_flush(scene, "0")
    return Section("The bell", "\n\n".join(parts), goals)


@contextlib.asynccontextmanager
async def _databases(scene: Scene) -> AsyncIterator[dict[str, str]]:
    """Make one for each kind of turn, with its readers."""
    urls = {name: scene.database() for name in ("nobody", "always armed", *map(_name, READERS))}
    async with connected(urls["nobody"]) as connection:
        await connection.execute("DROP TRIGGER ring ON reactive_orch.events")
    async with connected(urls["always armed"]) as connection:
        await connection.execute("SELECT reactive_orch.arm_bell('events', 600000)")
    async with contextlib.AsyncExitStack() as stack:
        for count in READERS:
            processes = min(count, 2)
            for _ in range(processes):
                arguments: dict[str, Any] = {"replica_set": "bell", "names": ["noop_batch"], "batch": 500}
                child = Child("workers", url=urls[_name(count)], count=count // processes, **arguments)
                await (await stack.enter_async_context(child)).ask("start")
        yield urls
    for url in urls.values():
        scene.drop(url)


def _name(readers: int) -> str:
    return f"{readers} reader{'s' * (readers > 1)}"


async def _turns(scene: Scene, urls: Mapping[str, str], writers: int) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {name: [] for name in urls}
    for _ in range(min(scene.repeat, REPEAT_MOST)):
        for name, url in urls.items():
            turns[name].append(await _turn(scene, url, writers, read="reader" in name))
    return turns


async def _turn(scene: Scene, url: str, writers: int, *, read: bool) -> Turn:
    seconds, seen = max(TURN_S * scene.scale, 2 * SLOW_START_S), list[Look]()
    async with connected(url) as connection:
        if read:
            await _armed(connection)
        before = await _look(connection)
        async with appending(scene, url, writers):
            while not seen or seen[-1].at_s - seen[0].at_s < seconds:
                look = await _look(connection)
                seen += [look] * (look.head > before.head)
                await asyncio.sleep(LOOK_EVERY_S)
        ended_s = time.monotonic()
        if read:
            await _armed(connection)
            armed_again_s = time.monotonic() - ended_s
            await drained(url)
            return Turn(seen, armed_again_s)
    return Turn(seen, 0.0)


async def _look(connection: Any) -> Look:
    head, armed = await connection.fetchrow(STATE)
    return Look(time.monotonic(), head, armed)


async def _armed(connection: Any) -> None:
    async with asyncio.timeout(ARMED_WITHIN_S):
        while not (await _look(connection)).armed:
            await asyncio.sleep(LOOK_EVERY_S)


def _throughput(turns: Mapping[int, Mapping[str, Sequence[Turn]]]) -> str:
    rows = []
    for writers, by_name in turns.items():
        floor = [turn.rate for turn in by_name["nobody"]]
        ratios = [
            f"{spread([turn.rate / bare for turn, bare in zip(some, floor, strict=True)])}"
            f" [{median([turn.armed for turn in some]):.2f}]"
            for name, some in by_name.items()
            if name != "nobody"
        ]
        rows.append([writers, spread(floor, 0), *ratios])
    names = [f"{name} ÷" for name in next(iter(turns.values())) if name != "nobody"]
    return table(["writers", "no trigger, nobody: tx/s", *names], rows)


def _slow_start(turns: Mapping[int, Mapping[str, Sequence[Turn]]]) -> str:
    rows = [
        [writers, *(_way_out(some) for name, some in by_name.items() if "reader" in name)]
        for writers, by_name in turns.items()
    ]
    head = ["writers: disarmed ms after the first append / armed again ms after the last", *map(_name, READERS)]
    return table(head, rows)


def _way_out(turns: Sequence[Turn]) -> str:
    out = [turn.disarmed_after_s * 1000 for turn in turns if turn.disarmed_after_s is not None]
    back = spread([turn.armed_again_s * 1000 for turn in turns], 0)
    return f"{spread(out, 0) if len(out) == len(turns) else 'not always'} / {back}"


def _goal(shown: str, turns: Mapping[int, Mapping[str, Sequence[Turn]]]) -> Goal:
    met = [
        turn.disarmed_after_s is not None and not turn.seen[-1].armed
        for by_name in turns.values()
        if median([turn.rate for turn in by_name["nobody"]]) > 2 * DISARM_ABOVE_PER_S  # slower ones may stay armed
        for name, some in by_name.items()
        for turn in some
        if "reader" in name
    ]
    return Goal(f"slow starts the bell came out of; {shown}", "all", f"{sum(met)} of {len(met)}", all(met))
