"""The end of a process whose handlers have left behind what does not end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import tomllib
from typing import TYPE_CHECKING

import anyio
import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.checkers import assert_effects_match_checkpoints, checked, wait_handled
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event, run_until_idle, serving
from integration_test.harness.processes import ROOT
from integration_test.harness.projections import handled, record
from integration_test.harness.waiting import TIMEOUT_S, wait_until
from reactive_orch import ReactiveOrchError, append
from reactive_orch import __main__ as ended_by
from reactive_orch import projection as make_projection

if TYPE_CHECKING:
    from integration_test.harness.connections import Connection
    from reactive_orch import Event

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
        sys.stdout.write(f"left {e.event_type}\n")
        await asyncio.sleep(0)
    elif e.event_type == "Bad":
        if "deaf" in sys.argv[-1]:
            await deaf_began.wait()
        raise KeyError
    elif e.event_type == "Cancelling all":
        for each in asyncio.all_tasks():
            each.cancel()
        await asyncio.sleep(0.05)


deaf_began = asyncio.Event()


@make_projection("deaf")
async def deaf(e: Event, _tx: Connection) -> None:
    if e.event_type == "Bad":
        deaf_began.set()
        await _never_end()


@pytest.mark.parametrize(
    ("end", "what"),
    [
        ("asked to stop", "a task"),
        ("failed", "a thread"),
        thorough("asked to stop", "a thread"),
        thorough("failed", "a task"),
    ],
)
async def test_what_a_handler_has_left_behind_does_not_keep_the_process(database: str, end: str, what: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k", what), *([event("k", "Bad")] if end == "failed" else ())])
        process = _started(database, until_idle=end == "failed")
        try:
            if end != "failed":
                await wait_handled(connection)
                process.send_signal(signal.SIGTERM)
            said, log = await asyncio.to_thread(process.communicate, timeout=TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 1
        assert said == f"left {what}\n", "what handlers print is not lost"
        assert "something that a handler has started does not end" in log
        assert log.count("failed at event position 2") == (end == "failed")
        await assert_effects_match_checkpoints(connection)


@pytest.mark.parametrize(
    ("what", "number"),
    [
        ("a task", signal.SIGTERM),
        ("a thread", signal.SIGINT),
        thorough("a task", signal.SIGINT),
        thorough("a thread", signal.SIGTERM),
    ],
)
async def test_a_second_signal_ends_at_once_what_waits_for_what_was_left_behind(
    database: str, what: str, number: signal.Signals
) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k", what)])
        process = _started(database, patience_s=600)
        try:
            await wait_handled(connection)
            process.send_signal(number)
            await wait_until(lambda: _gone(connection), what="its connections are closed")
            await asyncio.sleep(0.2)  # a little later nothing but what was left behind is waited for
            process.send_signal(number)
            _, log = await asyncio.to_thread(process.communicate, timeout=TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 1
        assert "Traceback" not in log


async def test_a_handler_that_heeds_no_cancellation_keeps_no_process_whose_other_projection_has_failed(
    database: str,
) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k"), event("k", "Bad")])
        process = _started(database, "deaf", until_idle=True)
        try:
            _, log = await asyncio.to_thread(process.communicate, timeout=TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 1
        raised_at = leaving.handler.__code__.co_firstlineno + 10
        assert (
            f"projection 'handled' failed at event position 2 in 1 attempts: KeyError at {__file__}:{raised_at}" in log
        )
        assert "something that a handler has started does not end" in log
        assert await connection.fetchval("SELECT count(*) FROM reactive_orch.members") == 0


async def test_a_handler_that_cancels_all_tasks_ends_the_worker_with_a_line_that_says_so(database: str) -> None:
    async with prepared(database) as connection:
        await append(connection, [event("k", "Cancelling all")])
        process = _started(database)
        try:
            _, log = await asyncio.to_thread(process.communicate, timeout=TIMEOUT_S)
        finally:
            process.kill()
        assert process.returncode == 1
        assert "something has cancelled tasks that are not its own" in log.splitlines()[-1]


def test_the_script_ends_as_the_module_does() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"reactive-orch": f"{ended_by.__name__}:{ended_by.run.__name__}"}


_SIGNALLED = """
import os, signal, sys
from reactive_orch.__main__ import run

class Late:
    def __del__(self, kill=os.kill, me=os.getpid(), number=signal.SIGTERM):
        kill(me, number)

late = Late()
sys.argv[1:] = ["--help"]
run()
"""


def test_a_signal_while_the_interpreter_is_taken_apart_does_not_change_how_the_process_ends() -> None:
    ended = subprocess.run([sys.executable, "-c", _SIGNALLED], capture_output=True, check=False, timeout=TIMEOUT_S)
    assert (ended.returncode, ended.stderr) == (0, b"")


_FAILED = """
from reactive_orch.errors import ProjectionFailed
from reactive_orch.process.explaining import explain
try:
    raise ProjectionFailed("why") from KeyError("deep")
except ProjectionFailed as error:
    raise SystemExit(explain(error))
"""


@pytest.mark.parametrize("options", [[], ["-X", "dev"]])
def test_developers_see_the_whole_traceback_of_a_handler(options: list[str]) -> None:
    ended = subprocess.run([sys.executable, *options, "-c", _FAILED], capture_output=True, text=True, check=False)
    *before, last = ended.stderr.splitlines()
    assert (ended.returncode, last) == (1, "reactive_orch: why")
    assert any("KeyError" in line for line in before) == bool(options)


_HASTY = """
import runpy, sys
from reactive_orch.process import last_resort
last_resort.LEFT_BEHIND_S = float(sys.argv.pop(1))
runpy.run_module("reactive_orch", run_name="__main__", alter_sys=True)
"""


def _started(database: str, *besides: str, patience_s: float = 0.3, until_idle: bool = False) -> subprocess.Popen[str]:
    """Start a worker that waits for nobody for more than a moment."""
    options = ["--replica-set", "test", "--batch", "1", "--http", "127.0.0.1:0", "--database-url", database]
    options += ["--retries", "0", "--on-error", "halt", *(["--until-idle"] if until_idle else [])]
    for projection in ("leaving", *besides):
        options += ["--projection", f"integration_test.process.test_last_resort:{projection}"]
    return subprocess.Popen(
        [sys.executable, "-c", _HASTY, str(patience_s), *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


async def _gone(connection: Connection) -> bool:
    return bool(await connection.fetchval(_OTHERS) == 0)


@pytest.mark.parametrize("of", ["Runner.run", "Watch.run", "LogFollower.run", "Node._keep_session", "RowWait.run"])
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
