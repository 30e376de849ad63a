"""The network between workers and database fails: nothing is lost, others take over, who was cut off comes back.

Each case is measured; the figures are shown at the end of the run.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from integration_test.environments.hosts.projections import HELD_BY
from integration_test.environments.hosts.scene import BACK_S, NOTICED_S, OTHERS_WAIT_S, TAKEN_OVER_S
from integration_test.harness.checkers import wait_handled
from integration_test.harness.command_line import run
from integration_test.harness.load import append_events
from integration_test.harness.processes import Process
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from integration_test.environments.hosts.figures import Note
    from integration_test.environments.hosts.scene import Scene, ThreeWorkers

SILENCE = ("-i {} -j DROP", "-o {} -j DROP")
RESETS = tuple(f"{way} {{}} -p tcp -j REJECT --reject-with tcp-reset" for way in ("-i", "-o"))
UNREACHABLE = tuple(f"{way} {{}} -j REJECT --reject-with icmp-host-unreachable" for way in ("-i", "-o"))


class Cut(NamedTuple):
    """How a worker is cut off."""

    what: str
    rules: tuple[str, ...]
    """Of the router; `{}` is the way to the worker's host."""
    lasts_s: float


CUTS = {
    "for_a_minute": Cut("nothing passes for 60 s", SILENCE, 60),
    "only_to_the_database": Cut("nothing passes to the database for 20 s", SILENCE[:1], 20),
    "only_from_the_database": Cut("nothing passes from the database for 20 s", SILENCE[1:], 20),
    "by_resets": Cut("connections are reset for 20 s", RESETS, 20),
    "as_unreachable": Cut("`host unreachable` for 20 s", UNREACHABLE, 20),
}


@pytest.mark.parametrize("how", CUTS)
async def test_who_is_cut_off_is_replaced_and_comes_back(three_workers: ThreeWorkers, how: str, note: Note) -> None:
    cut = CUTS[how]
    async with three_workers() as scene:
        began, until = await scene.clock(), time.monotonic() + cut.lasts_s
        with scene.cut_off(*cut.rules):
            await scene.taken_over(began)
            await asyncio.sleep(until - time.monotonic())
        figures = await scene.healed(began)
    note(cut.what, figures)
    assert 0 < (figures.taken_over_s or 0) < TAKEN_OVER_S
    assert figures.others_waited_s < OTHERS_WAIT_S
    assert 0 < (figures.back_s or 0) < BACK_S


async def test_who_is_cut_off_for_a_moment_stays(three_workers: ThreeWorkers, note: Note) -> None:
    async with three_workers() as scene:
        began = await scene.clock()
        with scene.cut_off(*SILENCE):
            await asyncio.sleep(5)
        figures = await scene.healed(began)
    note("nothing passes for 5 s", figures)
    assert figures.generations == 0
    assert figures.others_waited_s < OTHERS_WAIT_S
    assert 0 < (figures.back_s or 0) < BACK_S


async def test_who_is_cut_off_for_ever_can_still_be_stopped(three_workers: ThreeWorkers, note: Note) -> None:
    async with three_workers() as scene:
        began = await scene.clock()
        with scene.cut_off(*SILENCE):
            await scene.taken_over(began)
            await scene.worker.stop()
            figures = await scene.figures(began)
    note("nothing passes any more", figures)
    assert 0 < (figures.taken_over_s or 0) < TAKEN_OVER_S
    assert figures.others_waited_s < OTHERS_WAIT_S


async def test_a_batch_in_hand_of_who_is_cut_off_is_rolled_back_and_handled_by_others(
    three_workers: ThreeWorkers, tmp_path: Path, note: Note
) -> None:
    holds = tmp_path / "holds"
    async with three_workers(env={HELD_BY: str(holds)}) as scene:
        holds.touch()
        await scene.holds_a_batch()
        began, until = await scene.clock(), time.monotonic() + 20
        with scene.cut_off(*SILENCE):
            await scene.taken_over(began)
            holds.unlink()
            await asyncio.sleep(until - time.monotonic())
        figures = await scene.healed(began)
    note("nothing passes for 20 s, from the middle of a batch on", figures)
    assert 0 < (figures.taken_over_s or 0) < TAKEN_OVER_S
    assert figures.others_waited_s < OTHERS_WAIT_S
    assert 0 < (figures.back_s or 0) < BACK_S


async def test_a_host_that_dies_is_replaced(three_workers: ThreeWorkers, note: Note) -> None:
    async with three_workers() as scene:
        began = await scene.clock()
        scene.network.unplug(scene.host)
        await scene.worker.end()
        await scene.taken_over(began)
        figures = await scene.figures(began)
    note("its host dies", figures)
    assert 0 < (figures.taken_over_s or 0) < TAKEN_OVER_S
    assert figures.others_waited_s < OTHERS_WAIT_S


async def test_impatient_workers_replace_it_sooner(three_workers: ThreeWorkers, note: Note) -> None:
    async with three_workers(options=["--heartbeat=0.5", "--stale-after=2"]) as scene:
        began = await scene.clock()
        scene.network.unplug(scene.host)
        await scene.worker.end()
        await scene.taken_over(began)
        figures = await scene.figures(began)
    note("its host dies; all have `--heartbeat 0.5 --stale-after 2`", figures)
    assert 0 < (figures.taken_over_s or 0) < TAKEN_OVER_S / 2
    assert figures.others_waited_s < OTHERS_WAIT_S


@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("5 % of the packets are lost for 20 s", ["--loss=0.05"]),
        ("30 % of the packets are lost for 20 s", ["--loss=0.3"]),
        ("packets take 100 ms, 50 more or less, for 20 s", ["--delay=0.1", "--jitter=0.05"]),
    ],
    ids=["loses_some", "loses_many", "delays"],
)
async def test_a_network_that_loses_or_delays_costs_time_and_nothing_else(
    three_workers: ThreeWorkers, what: str, options: list[str], note: Note
) -> None:
    async with three_workers(wire=options) as scene:
        assert scene.wire is not None
        began = await scene.clock()
        scene.wire.send(signal.SIGUSR1)
        await asyncio.sleep(20)
        scene.wire.send(signal.SIGUSR2)
        figures = await scene.healed(began)
    note(what, figures)
    assert figures.waited_s < 20 + BACK_S
    assert figures.others_waited_s < OTHERS_WAIT_S
    assert 0 < (figures.back_s or 0) < BACK_S


@pytest.mark.parametrize("whose", ["its", "all"])
async def test_a_router_that_forgets_idle_connections_is_noticed_by_who_idles(
    three_workers: ThreeWorkers, whose: str, note: Note
) -> None:
    async with three_workers(remembering=True) as scene:
        await scene.load.stop()
        await wait_handled(scene.connection)
        scene.network.forget(*([scene.host] if whose == "its" else scene.hosts.values()))
        began = await scene.clock()
        await append_events(scene.connection, 400, keys=200)
        figures = await scene.figures(began)
    note(f"a router has forgotten {whose} connections when events come", figures)
    assert figures.waited_s < NOTICED_S
    assert figures.others_waited_s < (OTHERS_WAIT_S if whose == "its" else NOTICED_S)


async def test_while_nobody_reaches_the_database_nobody_is_removed(three_workers: ThreeWorkers, note: Note) -> None:
    async with three_workers() as scene:
        began = await scene.clock()
        with scene.cut_off(*SILENCE, host=scene.server.host):
            await asyncio.sleep(20)
        figures = await scene.healed(began)
    note("nothing passes from or to the database, for 20 s", figures)
    assert figures.generations == 0
    assert figures.others_waited_s < 20 + BACK_S


async def test_a_server_that_looks_after_its_clients_gives_up_one_whose_host_dies_while_it_appends(
    three_workers: ThreeWorkers, database: str, note: Note
) -> None:
    async with three_workers() as scene:
        await scene.connection.execute(LOOKED_AFTER)
        began = await _an_appender_vanishes(scene, database)
        await scene.all_handle()
        figures = await scene.figures(began)
    note("the host of an application dies while it appends", figures)
    assert max(figures.waited_s, figures.others_waited_s) < TAKEN_OVER_S


async def test_where_the_server_does_not_the_one_is_named_that_is_to_be_ended(
    three_workers: ThreeWorkers, database: str
) -> None:
    async with three_workers() as scene:

        async def named() -> str | None:
            status = json.loads((await run("status", "--json", DATABASE_URL=database)).out)
            return next((each["command"] for each in status["problems"] if each["code"] == "log_held"), None)

        began = await _an_appender_vanishes(scene, database)
        remedy = re.search(r"pg_terminate_backend\(\d+\)", await wait_until(named, 60, "who holds the log is named"))
        assert remedy
        await scene.connection.execute(f"SELECT {remedy[0]}")
        await scene.all_handle()
        await scene.figures(began)


async def _an_appender_vanishes(scene: Scene, database: str) -> Any:
    """Return when the host has died of an application that has not committed what it has appended."""
    with scene.network.host() as host:
        command = [*host.inside, sys.executable, "-m", f"{__package__}.appender", scene.server.address(database)]
        appender = await Process("appender", command, {}).start()
        try:
            await appender.said("appended")
            scene.network.unplug(host)
            return await scene.clock()
        finally:
            await appender.end()


LOOKED_AFTER = """
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET tcp_keepalives_idle = 5', current_database());
    EXECUTE format('ALTER DATABASE %I SET tcp_keepalives_interval = 2', current_database());
    EXECUTE format('ALTER DATABASE %I SET tcp_keepalives_count = 3', current_database());
    EXECUTE format('ALTER DATABASE %I SET tcp_user_timeout = 10000', current_database());
END $$
"""
"""By which a server finds out that a client's host has vanished: by the last one, if an acknowledgement is due."""
