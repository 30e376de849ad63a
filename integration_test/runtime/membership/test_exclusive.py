"""An exclusive projection: one worker has all of it, another takes over all of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.checkers import checked, wait_settled
from integration_test.harness.command_line import run
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, serving
from integration_test.harness.projections import record
from integration_test.harness.waiting import wait_until
from reactive_orch import Event, Projection, append, projection
from reactive_orch.model import OWN_LOG, Filter, Subscription

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from integration_test.harness.connections import Connection
    from reactive_orch import Worker

PARTITIONS = 64


def recorded(name: str = "handled", *, exclusive: bool = True) -> Projection:
    @projection(name, exclusive=exclusive)
    async def handled(e: Event, tx: Connection) -> None:
        await record(tx, name, e)

    return handled


def shares(*workers: Worker, expected: list[int], name: str = "handled") -> Callable[[], Awaitable[bool]]:
    async def are_held() -> bool:
        held = [len(worker.partitions.get(Subscription(name, OWN_LOG), ())) for worker in workers]
        return sorted(held) == sorted(expected)

    return are_held


async def fill(connection: Connection) -> None:
    await append(connection, [event(f"k{n}") for n in range(200)])


@pytest.mark.each_server
async def test_one_worker_has_all_and_another_takes_over_all(database: str) -> None:
    async with prepared(database) as connection:
        async with serving(database, recorded()) as one:
            await wait_until(shares(one, expected=[PARTITIONS]))
            async with serving(database, recorded()) as two:
                await wait_settled(connection, members=2)
                assert await shares(one, two, expected=[PARTITIONS, 0])()
                assert len(one.partitions[Subscription("handled", OWN_LOG)]) == PARTITIONS, "a joiner takes nothing"
                await fill(connection)
                await checked(connection)
                one.stop()
                await wait_until(shares(two, expected=[PARTITIONS]))
                await fill(connection)
                await checked(connection)
        shown = (await run("status", "--replica-set", "test", "--database-url", database)).done()
        assert "exclusive: one worker has all its partitions" in shown


async def test_an_exclusive_one_that_is_divided_is_caught(database: str, plant: Callable[[str], None]) -> None:
    plant("exclusive_projection_divided")
    with pytest.RaisesGroup(AssertionError, flatten_subgroups=True):
        await test_one_worker_has_all_and_another_takes_over_all(database)


async def test_several_are_spread_over_the_workers(database: str) -> None:
    names = ("a", "b", "c", "d")
    each = [recorded(name) for name in names]
    async with prepared(database), serving(database, *each) as one, serving(database, *each) as two:

        async def two_each() -> bool:
            return all(sorted(map(len, each.partitions.values())) == [0, 0, 64, 64] for each in (one, two))

        await wait_until(two_each)


@pytest.mark.parametrize("exclusive", [True, False])
async def test_it_changes_with_the_code_that_is_deployed_and_nothing_comes_twice(
    database: str, *, exclusive: bool
) -> None:
    before, after = recorded(exclusive=not exclusive), recorded(exclusive=exclusive)
    both = [PARTITIONS, 0] if exclusive else [PARTITIONS // 2] * 2
    async with prepared(database) as connection, serving(database, before) as one:
        await wait_until(shares(one, expected=[PARTITIONS]))
        async with serving(database, before) as two:
            await wait_until(shares(one, two, expected=[PARTITIONS, 0] if not exclusive else [PARTITIONS // 2] * 2))
            await fill(connection)
            two.stop()
            await wait_until(shares(one, expected=[PARTITIONS]))
        async with serving(database, after) as two:
            await wait_until(shares(one, two, expected=both))
            await fill(connection)
            await checked(connection)


async def test_what_a_refused_worker_declares_counts_when_its_filter_is_accepted(database: str) -> None:
    narrowed = replace(recorded(), filter=Filter(aggregate_types=("Order",)))
    of = ("--replica-set", "test", "--projection", "handled", "--database-url", database)
    async with (
        prepared(database) as connection,
        serving(database, recorded(exclusive=False)) as one,
        serving(database, recorded(exclusive=False)) as two,
    ):
        await wait_until(shares(one, two, expected=[PARTITIONS // 2] * 2))
        async with serving(database, narrowed, recorded("other")) as refused:
            await wait_settled(connection, members=3)
            assert await shares(one, two, expected=[PARTITIONS // 2] * 2)(), "it does not run it"
            (await run("rewind", "--to", "keep", *of)).done()
            await wait_until(shares(refused, expected=[PARTITIONS]))
