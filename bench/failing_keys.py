"""Failing keys: the throughput beside 0, 1 and 100 parked ones, and a poison event in each partition."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from bench.figures import Goal, Section, median, spread, table
from bench.fill import INSERT
from bench.scene import Child, connected

if TYPE_CHECKING:
    from bench.scene import Scene

KEYS = 5000
"""Among which `bench.fill` divides its events."""
EVENTS = 10_000
PARKED = (0, 1, 100)
HANDLERS = {"noop": "no-op", "insert": "INSERT"}
KEPT, TIMES = 0.9, 2.0
POISONED, PARTITIONS = 20_000, 64
FAIL = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)
SELECT 'Order', 'order-' || n / 2 + (n % 2) * 1000, 1000000, CASE n % 2 WHEN 0 THEN 'Broken' ELSE 'OrderPlaced' END
FROM generate_series(0, 2 * $1::integer - 1) AS n
"""
"""Every other event succeeds: keys that fail alike in a row would be taken for an outage."""
POISON = """
WITH poison AS (
    SELECT DISTINCT ON (s.partition) s.partition, s.id
    FROM (SELECT 'poison-' || n AS id, hashtextextended('poison-' || n, 0) & ($2::integer - 1) AS partition
          FROM generate_series(1, 100 * $2::integer) AS n) s
)
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type)
SELECT 'Order', coalesce(p.id, 'order-' || n % 5000), n / 5000 + 1, CASE WHEN p.id IS NULL THEN 'OrderPlaced' ELSE 'Broken' END
FROM generate_series(0, $1::integer - 1) AS n
LEFT JOIN poison p ON n % ($1::integer / $2::integer) = 0 AND p.partition = n / ($1::integer / $2::integer)
ORDER BY n
"""
"""At even distances, each in another partition and of a key that has no other event."""


async def measure(scene: Scene) -> Section:
    """Measure both, one after the other."""
    parked, goals = await _parked(scene)
    poisoned, more = await _poisoned(scene)
    return Section("Failing keys", f"{parked}\n\n{poisoned}", goals + more)


async def _parked(scene: Scene) -> tuple[str, list[Goal]]:
    """Let workers with more and more parked keys handle the same events, in turns."""
    events = scene.scaled(EVENTS, KEYS) // KEYS * KEYS
    rates: dict[tuple[str, int], list[float]] = {(name, keys): [] for name in HANDLERS for keys in PARKED}
    url = scene.database()
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        workers = {case: await stack.enter_async_context(_worker(url, f"{case[0]}_{case[1]}")) for case in rates}
        await connection.execute(FAIL, max(PARKED))
        for (name, keys), worker in workers.items():
            await worker.ask("catch_up", replica_set=f"{name}_{keys}", events=2 * max(PARKED) - keys)
        for turn in range(scene.repeat + 1):
            await connection.execute(INSERT, turn * events // KEYS, events)
            await connection.execute("VACUUM ANALYZE")
            for (name, keys), worker in workers.items():
                handled = events * (KEYS - keys) // KEYS
                seconds = await worker.ask("catch_up", replica_set=f"{name}_{keys}", events=handled)
                if turn:  # the first fills caches
                    rates[name, keys].append(events / seconds)
    scene.drop(url)
    return _shown(rates, events), [_goal(rates, name) for name in HANDLERS]


def _shown(rates: dict[tuple[str, int], list[float]], events: int) -> str:
    text = (
        f"A worker catches up with {events:,} events of {KEYS:,} keys, {events // KEYS} each, of which some were parked before. "
        "The events of parked keys are among them, and wait: with 100 parked keys every 50th. Handlers of single events; "
        "events per second, those that wait included:\n\n"
    )
    rows = [
        [HANDLERS[name], keys, spread(values, 0), spread(_ratios(rates, name, keys)) if keys else ""]
        for (name, keys), values in rates.items()
    ]
    return text + table(["handler", "parked keys", "events/s", "÷ without"], rows)


def _ratios(rates: dict[tuple[str, int], list[float]], name: str, keys: int) -> list[float]:
    return [some / none for some, none in zip(rates[name, keys], rates[name, 0], strict=True)]


def _goal(rates: dict[tuple[str, int], list[float]], name: str) -> Goal:
    ratios = _ratios(rates, name, 1)
    return Goal(
        f"catch-up beside one parked key ÷ without: {HANDLERS[name]}",
        f"≥ {KEPT}",
        spread(ratios),
        median(ratios) >= KEPT,
    )


async def _poisoned(scene: Scene) -> tuple[str, list[Goal]]:
    """Let workers whose handlers fail, or do not, at an event of each partition handle the same log, in turns."""
    events = scene.scaled(POISONED / PARTITIONS, 30) * PARTITIONS
    cases = [(name, fails) for name in HANDLERS for fails in (False, True)]
    seconds: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    url = scene.database()
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(connected(url))
        await connection.execute(POISON, events, PARTITIONS)
        await connection.execute("VACUUM ANALYZE")
        workers = {
            case: await stack.enter_async_context(_worker(url, f"{case[0]}_{'poisoned' if case[1] else '0'}"))
            for case in cases
        }
        for turn in range(scene.repeat + 1):
            for case, worker in workers.items():
                own: Any = {"replica_set": f"turn{turn}_{case[0]}_{case[1]}", "events": events - case[1] * PARTITIONS}
                took = await worker.ask("catch_up", **own)
                if turn:  # the first fills caches
                    seconds[case].append(took)
    scene.drop(url)
    text = (
        f"One event in each of {PARTITIONS} partitions always fails, every {events // PARTITIONS}th of {events:,}; it is tried again "
        "twice, then parked. Seconds until all others are handled:\n\n"
    )
    rows, goals = [], []
    for name, shown in HANDLERS.items():
        without, beside = seconds[name, False], seconds[name, True]
        ratios = [some / none for some, none in zip(beside, without, strict=True)]
        each_ms = [1000 * (some - none) / PARTITIONS for some, none in zip(beside, without, strict=True)]
        rows.append([shown, spread(without), spread(beside), spread(ratios), spread(each_ms, 0)])
        figure = f"{PARTITIONS} poison events among {events:,} ÷ without: {shown}"
        goals.append(Goal(figure, f"< {TIMES:g}", spread(ratios), median(ratios) < TIMES))
    return text + table(["handler", "none fails", "64 fail", "÷ without", "for each that fails, ms"], rows), goals


def _worker(url: str, name: str) -> Child:
    return Child("workers", url=url, replica_set="", names=[f"failing_{name}"])
