"""From COMMIT to the handler, at 50 events a second on an idle worker, against bare LISTEN and SELECT.

Two clocks, and the same one for the floor and for the worker. From the moment COMMIT was sent, a delay has the writer's
round trip and its commit in it, which no reader can make shorter. From the moment COMMIT was answered, it has nothing
of the writer's side: what the reader's side alone costs. The event can be seen a little before the answer has arrived,
so this clock starts late, for both by as much: a ratio of two delays, both shortened, says rather too much than too
little of the worker.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from bench.figures import Goal, Section, median, percentile, spread, table
from bench.scene import Child, connected, loops

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.scene import Scene

EVENTS_PER_S = 50
TURN_S = 2.0
SETTLE_S = 0.1
"""How long a turn waits for its last event."""
INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type) "
    "VALUES ('Order', gen_random_uuid()::text, 1, 'OrderPlaced') RETURNING global_position"
)
GOALS = {"": 5.0, "uvloop": 4.0}
"""The handler's p50 ÷ the floor's, by loop, from the answer on."""
P99_GOAL = 3.0
NAMES = {
    "floor": "floor: LISTEN, SELECT on bare asyncpg",
    "called": "handler called",
    "committed": "effects committed (swap, INSERT, COMMIT, flush)",
}

Clock = Literal["sent", "answered"]


class Delay(NamedTuple):
    """Of one event, in milliseconds, since COMMIT was sent and since it was answered."""

    sent: float
    answered: float


@dataclass(frozen=True, slots=True)
class Turns:
    """The delays of each turn, by what was waited for."""

    parts: dict[str, list[list[Delay]]]

    def by(self, clock: Clock, name: str) -> list[list[float]]:
        """Return the milliseconds of each turn."""
        return [[getattr(delay, clock) for delay in turn] for turn in self.parts[name]]

    def all_by(self, clock: Clock, name: str) -> list[float]:
        """Return the milliseconds of all turns."""
        return [ms for turn in self.by(clock, name) for ms in turn]

    def ratios(self, clock: Clock, name: str) -> list[float]:
        """Return of each turn its p50, divided by the floor's."""
        pairs = zip(self.by(clock, name), self.by(clock, "floor"), strict=True)
        return [median(turn) / median(floor) for turn, floor in pairs]


async def measure(scene: Scene) -> Section:
    """Take turns, over TCP and over a Unix socket, on asyncio's own loop and on uvloop: each turn is one ratio."""
    measured = {
        (way, loop): await _turns(scene, env, socket=way == "Unix socket")
        for loop, env in loops().items()
        for way in ("TCP", "Unix socket")
    }
    return _section(measured, _turn_s(scene))


async def turns(scene: Scene) -> dict[str, list[list[float]]]:
    """Return the milliseconds since COMMIT was sent, of each turn, over TCP on asyncio's own loop."""
    taken = await _turns(scene, {}, socket=False)
    return {name: taken.by("sent", name) for name in taken.parts}


async def _turns(scene: Scene, env: Mapping[str, str], *, socket: bool) -> Turns:
    """Take turns, two seconds of the floor and two seconds of a worker; the first pair fills caches."""
    databases = scene.database(), scene.database()
    floor_url, worker_url = map(scene.server.socket_url, databases) if socket else databases
    parts: dict[str, list[list[Delay]]] = {name: [] for name in NAMES}
    async with (
        Child("floor", env, url=floor_url) as floor,
        Child("workers", env, url=worker_url, replica_set="latency", names=["clock"]) as worker,
    ):
        await worker.ask("start")
        for n in range(max(scene.scaled(scene.repeat), 2) + 1):
            both = await turn(floor_url, floor, _turn_s(scene)), await turn(worker_url, worker, _turn_s(scene))
            if n:
                parts["floor"].append(both[0]["called"])
                parts["called"].append(both[1]["called"])
                parts["committed"].append(both[1]["committed"])
    for url in databases:
        scene.drop(url)
    return Turns(parts)


def _turn_s(scene: Scene) -> float:
    return TURN_S * min(scene.scale, 1.0)


async def turn(url: str, child: Child, seconds: float = TURN_S, per_s: float = EVENTS_PER_S) -> dict[str, list[Delay]]:
    """Write for so long; return the delays."""
    # Without waiting for the flush: it would be most of every figure since COMMIT was sent, on either side.
    async with connected(url, synchronous_commit="off") as connection:
        written: dict[str, tuple[int, int]] = {}
        began = time.monotonic()
        for n in range(int(per_s * seconds)):
            await asyncio.sleep(max(began + n / per_s - time.monotonic(), 0))
            transaction = connection.transaction()
            await transaction.start()
            position = await connection.fetchval(INSERT)
            sent = time.monotonic_ns()
            await transaction.commit()
            written[str(position)] = sent, time.monotonic_ns()
        await asyncio.sleep(SETTLE_S)
    answer = await child.ask("report")
    return {
        name: [
            Delay(*((at - since) / 1e6 for since in written[position]))
            for position, at in times.items()
            if position in written
        ]
        for name, times in answer.items()
    }


def _section(measured: Mapping[tuple[str, str], Turns], turn_s: float) -> Section:
    rows = [row for (way, loop), taken in measured.items() for row in _rows(_over(way, loop), taken)]
    goals = [goal for (way, loop), taken in measured.items() for goal in _goals(_over(way, loop), GOALS[loop], taken)]
    events = sum(len(taken.all_by("sent", "called")) for taken in measured.values())
    text = (
        f"{(__doc__ or '').split(chr(10) * 2, 1)[1]}\nMilliseconds, {EVENTS_PER_S} events a second, {events} events in turns of "
        f"{turn_s:g} s; floor and worker on the same loop and the same way to the database.\n\n"
        + table(["", "since COMMIT was", "p50", "p90", "p99", "worst", "÷ floor, p50 by p50 of each turn"], rows)
    )
    return Section("Latency", text, goals)


def _over(way: str, loop: str) -> str:
    return f"{way}, {loop}" if loop else way


def _rows(over: str, taken: Turns) -> Iterator[list[str]]:
    clocks: tuple[Clock, ...] = ("sent", "answered")
    for clock in clocks:
        for name, text in NAMES.items():
            delays = taken.all_by(clock, name)
            shares = [f"{percentile(delays, share):.2f}" for share in (0.5, 0.9, 0.99, 1.0)]
            ratio = "1" if name == "floor" else spread(taken.ratios(clock, name), 1)
            yield [f"{over}: {text}", clock, *shares, ratio]


def _goals(over: str, goal: float, taken: Turns) -> Iterator[Goal]:
    ratios = taken.ratios("answered", "called")
    yield Goal(
        f"commit answered → handler called, p50 ÷ floor's, {over}",
        f"≤ {goal:g}",
        spread(ratios, 1),
        median(ratios) <= goal,
    )
    delays = taken.all_by("answered", "called")
    own = percentile(delays, 0.99) / median(delays)
    floors = percentile(taken.all_by("answered", "floor"), 0.99)
    figure = f"commit answered → handler called, p99 ÷ own p50, {over} (floor's p99: {floors:.2f} ms)"
    yield Goal(figure, f"≤ {P99_GOAL:g}", f"{own:.1f}: {percentile(delays, 0.99):.2f} ms", own <= P99_GOAL)
    ratios = taken.ratios("sent", "called")
    yield Goal(f"commit sent → handler called, p50 ÷ floor's, {over}", "≤ 5", spread(ratios, 1), median(ratios) <= 5)
    ratios = taken.ratios("sent", "committed")
    yield Goal(
        f"commit sent → effects committed, p50 ÷ floor's, {over}", "≤ 10", spread(ratios, 1), median(ratios) <= 10
    )
