"""Events that come with the look that has settled them: all of them or none, and only whom they concern they wake."""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from integration_test.chaos import planted
from integration_test.harness.connections import connected
from integration_test.harness.in_process import event, serving
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, append, projection
from reactive_orch.core.progress import Progress
from reactive_orch.incarnation import NEVER
from reactive_orch.model import OWN_LOG, Checkpoint, Filter, Window
from reactive_orch.postgres import log, windows
from reactive_orch.runtime.handling.lane import Lane
from reactive_orch.runtime.reading.fresh import Fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from integration_test.harness.connections import Connection

ALL = range(64)
GATE = 77


async def _look(connection: Connection, after: int = 0, partitions: Sequence[int] = ALL) -> log.Look:
    return await log.observe(connection, OWN_LOG, after, partitions)


async def test_they_are_those_that_a_window_has(database: str) -> None:
    async with connected(database) as connection:
        await append(connection, [event(f"k{n}", payload=b"p" * n) for n in range(20)])
        found = await windows.read_window(connection, OWN_LOG, Window(tuple(ALL), 5, 20, 100), Filter())
        look = await _look(connection, 5)
        assert (look.head, look.fresh) == (20, list(found.events))
        mine = (found.events[0].partition, found.events[7].partition)
        assert (await _look(connection, 5, mine)).fresh == [e for e in found.events if e.partition in mine]
        assert (await _look(connection, 20)).fresh == []


@pytest.mark.parametrize("what", ["too many", "too large", "unreadable"])
async def test_what_does_not_come_along_is_left_to_be_read(database: str, what: str) -> None:
    async with connected(database) as connection:
        await append(connection, [event() for _ in range(log.FRESH_MOST)])
        assert len((await _look(connection)).fresh or ()) == log.FRESH_MOST
        large = b"x" * log.FRESH_BYTES if what == "too large" else b""
        await append(connection, [event(payload=large)])
        if what == "unreadable":
            await connection.execute("UPDATE reactive_orch.events SET created_at = '0044-03-15 BC'")
        after = 0 if what == "too many" else log.FRESH_MOST
        look = await _look(connection, after)
        assert (look.head, look.fresh) == (log.FRESH_MOST + 1, None)


async def _somebody_may_still_commit(database: str) -> None:
    async with connected(database) as connection, connected(database) as writer:
        async with writer.transaction():
            await append(writer, [event()])
            await append(connection, [event("another key")])
            assert (await _look(connection)).fresh is None
        assert [e.global_position for e in (await _look(connection)).fresh or ()] == [1, 2]


async def test_none_come_while_somebody_may_still_commit(database: str) -> None:
    await _somebody_may_still_commit(database)


async def test_some_that_come_too_early_are_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("fresh_events_read_while_others_may_commit")
    with pytest.raises(AssertionError):
        await _somebody_may_still_commit(database)


async def _committed_when_the_look_has_begun(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The statement's own snapshot is older than the event, the head is not."""
    waiting = "(SELECT pg_advisory_xact_lock_shared(77)::text AS waited OFFSET 0) gate CROSS JOIN LATERAL "
    look = log._SQL.look.replace(  # noqa: SLF001 - a gate where there is none
        "reactive_orch.observe_log_from($1::text,",
        f"{waiting}reactive_orch.observe_log_from($1::text || left(gate.waited, 0),",
    )
    assert waiting in look
    monkeypatch.setattr(log._SQL, "look", look)  # noqa: SLF001
    seen: list[log.Look] = []

    async def looks() -> None:
        async with connected(database) as other:
            seen.append(await _look(other))

    async with connected(database) as connection:
        await connection.execute("SELECT pg_advisory_lock($1)", GATE)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(looks)
            await wait_until(lambda: _is_waited_for(connection), what="the look has begun")
            await append(connection, [event()])
            await connection.execute("SELECT pg_advisory_unlock($1)", GATE)
    assert [(look.head, len(look.fresh or ())) for look in seen] == [(1, 1)]


async def _is_waited_for(connection: Connection) -> bool:
    return bool(
        await connection.fetchval(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1::bigint AND NOT granted", GATE
        )
    )


async def test_what_is_committed_before_the_head_is_read_comes(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await _committed_when_the_look_has_begun(database, monkeypatch)


async def test_an_older_snapshot_is_caught(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(database) as connection:
        await connection.execute(planted.schema("fresh_events_read_with_the_looks_snapshot"))
    with pytest.raises(AssertionError):
        await _committed_when_the_look_has_begun(database, monkeypatch)


def _made(position: int, partition: int) -> Event:
    rest: tuple[Any, ...] = ("default", "Thing", "k", 1, None, "Happened", 1, b"", None, None, None, "{}", None)
    return Event(position, partition, *rest)


def _further_back() -> None:
    progress = Progress(100, 64)
    progress.take({0: Checkpoint(5, 0, 0), 1: Checkpoint(9, 0, 0)})
    window = progress.window(12, 100)
    assert window is not None
    fresh = Fresh(frozenset({0, 1}), 9, 12, [_made(11, 1)], NEVER)
    assert fresh.fetched(window, Filter(), progress.read_to) is None, "partition 0 may have one at 6 to 9"


def test_a_lane_that_stands_further_back_reads_for_itself() -> None:
    _further_back()


def test_a_lane_that_does_not_is_caught(plant: Callable[[str], None]) -> None:
    plant("fresh_events_taken_for_all_there_is")
    with pytest.raises(AssertionError):
        _further_back()


async def test_an_event_wakes_the_lane_that_has_it_and_no_window_is_read(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds, keys = 40, random.Random(4)
    handled: list[int] = []
    counts = dict.fromkeys(("reads", "steps"), 0)
    read_window, step = windows.read_window, Lane._step  # noqa: SLF001

    @projection("fresh", concurrency=4)
    async def fresh(each: Event, tx: Connection) -> None:  # noqa: ARG001
        handled.append(each.partition)

    async def reads(*wanted: Any) -> windows.Found:
        counts["reads"] += 1
        return await read_window(*wanted)

    async def steps(own: Lane, tasks: Any) -> None:
        counts["steps"] += 1
        await step(own, tasks)

    monkeypatch.setattr(windows, "read_window", reads)
    monkeypatch.setattr(Lane, "_step", steps)
    async with connected(database) as connection, serving(database, fresh) as worker:
        await wait_until(lambda: _serves(worker), what="it serves")
        for n in range(1, rounds + 1):
            await append(connection, [event(f"k{keys.random()}")])
            await wait_until(partial(_has, handled, n), what="it is handled")
        expected = await connection.fetch("SELECT partition FROM reactive_orch.events ORDER BY global_position")
    assert handled == [row["partition"] for row in expected]
    assert len({partition % 4 for partition in handled}) > 1, "several lanes had some"
    assert counts["reads"] <= rounds / 4, "each would be read once more"
    assert counts["steps"] <= 3 * rounds, "all lanes would take at least two steps for each"


async def _serves(worker: Any) -> bool:
    return bool(worker.state.name == "SERVING")


async def _has(handled: Sequence[int], count: int) -> bool:
    return len(handled) >= count
