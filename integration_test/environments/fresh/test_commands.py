"""What docs/quickstart.md says to one who has just cloned it, on machines with Python, venv, make, git and no more.

`make check` and `make test` take a quarter of an hour on two cores, so three of the six machines run them as a whole:
each system, each kind of user. The other three run what depends on the user. With `make test-fresh ARGS=--full-matrix`
all six run all.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.podman import CONF
from integration_test.harness import pages
from integration_test.harness.terminals import Terminal
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from integration_test.environments.podman import Machine

HOUR_S = 3600
USERS_MATTER = "embedded or test_pages or test_deployment or test_single_worker_processes_events"
PASSED = r"\d+ passed.* in "
CTRL_C = "\x03"
PAGE = "docs/quickstart.md"
MAKE_RUN = pages.the("make run\n", PAGE)
APPEND = pages.the('"total": 120}', PAGE)
STOP = pages.the("stop-embedded\n", PAGE)


@pytest.mark.timeout(2 * HOUR_S)
def test_make_check_and_make_test_pass(machine: Machine, whole: bool) -> None:  # noqa: FBT001 - a fixture
    if whole:
        assert re.search(PASSED, machine.run("cd reactive_orch; make check", HOUR_S))
    selection = "" if whole else f" ARGS='-k \"{USERS_MATTER}\"'"
    assert re.search(PASSED, machine.run(f"cd reactive_orch; make test{selection}", HOUR_S))


def _terminal(machine: Machine, script: str) -> Terminal:
    command = machine.command(f"cd reactive_orch\n{script}", "--interactive", "--tty")
    return Terminal(command=command, columns=200, CONTAINERS_CONF=CONF)


def _pid(machine: Machine, worker: int) -> int:
    """Return which process of the machine a worker is."""
    said = machine.run("cd reactive_orch; .venv/bin/python -m reactive_orch status --json")
    ((pid,),) = ([w["pid"] for w in r["workers"] if w["id"] == worker] for r in json.loads(said)["replica_sets"])
    return int(pid)


@pytest.mark.timeout(HOUR_S)
async def test_the_first_five_minutes_are_as_the_page_tells_them(machine: Machine) -> None:
    async with _terminal(machine, MAKE_RUN) as first, contextlib.AsyncExitStack() as later:
        await first.shows(r"generation 1 of demo \(join of 1\), 1 members: worker 1 took 64", HOUR_S / 6)
        second = await later.enter_async_context(_terminal(machine, MAKE_RUN))
        for each in (first, second):
            await each.shows(r"generation 2 of demo \(join of 2\), 2 members: .* holds 32")

        status = machine.run("cd reactive_orch\n" + APPEND)
        assert "event_counts" in status

        async def one_has_it() -> bool:
            return ("1 events: 1 OrderPlaced" in first.screen) != ("1 events: 1 OrderPlaced" in second.screen)

        await wait_until(one_has_it)

        frozen = _pid(machine, 2)
        machine.run(f"kill -STOP {frozen}")
        await first.shows(r"generation 3 of demo \(stale of 2\).* holds 64")
        machine.run(f"kill -CONT {frozen}")
        await first.shows(r"generation 4 of demo \(join of 3\).* holds 32")
        machine.run(f"kill -9 {frozen}")
        await first.shows(r"generation 5 of demo \(death of 3\).* holds 64")

        third = await later.enter_async_context(_terminal(machine, MAKE_RUN))
        await third.shows(r"generation 6 of demo \(join of 4\)")
        first.type(CTRL_C)
        await third.shows(r"generation 7 of demo \(leave of 1\).* holds 64")
        third.type(CTRL_C)
        await third.ended()
    # Root's own directory is closed to the user that runs its server.
    place = "/var/lib/reactive_orch" if machine.user == "root" else "/.local/share/reactive_orch"
    assert f"{place}/postgres-" in machine.run("cd reactive_orch\n" + STOP)
