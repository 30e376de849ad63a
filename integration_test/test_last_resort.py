"""The end of a process whose handlers have left behind what does not end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from integration_test.harness import ROOT, TIMEOUT_S, prepared, wait_handled
from integration_test.in_process import assert_effects_match_checkpoints, checked, event, run_until_idle, serving
from integration_test.projections import handled, record
from reactive_orch import ReactiveOrchError, append
from reactive_orch import projection as make_projection

if TYPE_CHECKING:
    from integration_test.harness import Connection
    from reactive_orch import Event

pytestmark = pytest.mark.any_server

_left: list[object] = []


async def _never_end() -> None:
    while True:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            continue


def _leave_task() -> None:
    _left.append(asyncio.create_task(_never_end()))


def _leave_thread() -> None:
    _left.append(threading.Thread(target=threading.Event().wait))
    _left[-1].start()  # type: ignore[attr-defined]  # a list of whatever is left


LEAVE = {"a task": _leave_task, "a thread": _leave_thread}


@make_projection("handled")
async def leaving(e: Event, tx: Connection) -> None:
    await record(tx, "handled", e)
    if e.event_type in LEAVE:
        LEAVE[e.event_type]()
        await asyncio.sleep(0)
    elif e.event_type == "Bad":
        raise KeyError


@pytest.mark.parametrize("what", LEAVE)
@pytest.mark.parametrize("fails", [False, True], ids=["asked to stop", "failed"])
async def test_what_a_handler_has_left_behind_does_not_keep_the_process(
    database: str,
    what: str,
    fails: bool,  # noqa: FBT001
) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k", what)])
        process = _started(database)
        try:
            await wait_handled(connection)
            if fails:
                await append(connection, [event("k", "Bad")])
            else:
                process.send_signal(signal.SIGTERM)
            _, log = await asyncio.to_thread(process.communicate, timeout=TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 1
        assert "something that a handler has started does not end" in log
        assert log.count("failed at event position 2") == fails
        await assert_effects_match_checkpoints(connection)


_HASTY = """
import runpy
from reactive_orch import last_resort
last_resort.LEFT_BEHIND_S = 0.3
runpy.run_module("reactive_orch", run_name="__main__", alter_sys=True)
"""


def _started(database: str) -> subprocess.Popen[str]:
    """Start a worker that waits for nobody for more than a moment."""
    options = "--replica-set test --retries 0 --http 127.0.0.1:0 --projection integration_test.test_last_resort:leaving"
    return subprocess.Popen(
        [sys.executable, "-c", _HASTY, *options.split(), "--database-url", database],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )


# ------------------------------------------------------------------------------------- tasks that handlers cancel


@pytest.mark.parametrize("of", ["Share.run", "Watch.run", "Tail.run", "Node._keep_session", "RowWait.run"])
async def test_a_worker_whose_own_tasks_are_cancelled_does_not_end_quietly(database: str, of: str) -> None:
    @make_projection("handled")
    async def cancelling(e: Event, tx: Connection) -> None:
        await record(tx, "handled", e)
        if e.event_type == "Bad":
            for task in asyncio.all_tasks():
                if task.get_name().endswith(f".{of}"):
                    task.cancel()
            await asyncio.sleep(0.05)

    async with prepared(database) as connection:
        await append(connection, [event("a"), event("b", "Bad"), event("c")])
        with pytest.raises((ReactiveOrchError, BaseExceptionGroup)) as caught:
            async with asyncio.timeout(TIMEOUT_S), serving(database, cancelling):
                await asyncio.Event().wait()
        assert "something has cancelled tasks that are not its own" in repr(caught.value)
        await assert_effects_match_checkpoints(connection)
        await run_until_idle(database, handled)
        await checked(connection)
