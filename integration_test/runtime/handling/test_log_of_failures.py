"""What a worker's log says of a failing event, and what it keeps to itself."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.command_line import FAILED, run_worker
from integration_test.harness.connections import prepared
from integration_test.harness.in_process import event
from reactive_orch import append
from reactive_orch.commands.run import _observers
from reactive_orch.telemetry.tracebacks import TRACEBACKS

if TYPE_CHECKING:
    from pathlib import Path

SLOW = """
import asyncio
from reactive_orch import projection

@projection("slow")
async def slow(event, tx):
    await asyncio.sleep(60 if event.aggregate_id == "k" else 0)
"""


FAILING = """
from reactive_orch import projection

def check(key):
    if key.startswith("bad"):
        raise LookupError("hush " + key)

@projection("failing")
async def failing(event, tx):
    check(event.aggregate_id)
"""


def lines_of(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]


async def test_the_first_line_about_a_time_out_names_it_the_projection_and_the_event(
    database: str, tmp_path: Path
) -> None:
    (tmp_path / "slow_projection.py").write_text(SLOW)
    async with prepared(database) as connection:
        await append(connection, [event("other"), event("k"), event("another")])
        options = ("--handler-timeout", "0.3", "--retries", "0", "--on-error", "halt", "--log-format", "json")
        ended = await run_worker("--projection", "slow_projection", *options, url=database, cwd=tmp_path)
    assert ended.code == FAILED
    said = [line["message"] for line in lines_of(ended.err) if line.get("event") == "retrying"]
    assert said[0] == (
        "projection slow: batch rolled back at position 2, trying again: "
        f"the handler took longer than 0.3 s (--handler-timeout) at {tmp_path}/slow_projection.py:7"
    )


async def _fails(database: str, folder: Path, *options: str) -> list[dict[str, Any]]:
    """Let three events of two keys fail, in a batch with others, and return the log."""
    (folder / "failing_projection.py").write_text(FAILING)
    async with prepared(database) as connection:
        await append(connection, [event(key) for key in ("a", "bad 1", "b", "bad 1", "bad 2", "c")])
        defaults = ("--projection", "failing_projection", "--retries", "2", "--log-format", "json")
        ended = await run_worker(*defaults, *options, url=database, cwd=folder)
        assert ended.code == 0, ended
        return lines_of(ended.err)


async def test_the_whole_traceback_of_an_events_first_failure_is_in_the_log(database: str, tmp_path: Path) -> None:
    lines = await _fails(database, tmp_path, "--log-tracebacks")
    assert len([line for line in lines if line.get("event") == "retrying"]) > 4
    told = [line for line in lines if line.get("event") == "traceback"]
    assert [line["message"] for line in told] == [
        f"projection failing: how it failed at position {position}" for position in (2, 5)
    ]
    for line, key in zip(told, ("bad 1", "bad 2"), strict=True):
        first, *rest = line["traceback"].splitlines()
        assert first == "Traceback (most recent call last):"
        assert 'failing_projection.py", line 10, in failing' in rest[0]
        assert 'failing_projection.py", line 6, in check' in line["traceback"]
        assert rest[-1] == f"LookupError: hush {key}"


@pytest.mark.parametrize("options", [(), ("--no-log-tracebacks",)])
async def test_no_text_of_an_exception_is_in_the_log_of_a_service(
    database: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    lines = await _fails(database, tmp_path, *options)
    assert {"retrying", "parked"} <= {line.get("event") for line in lines}
    assert "hush" not in json.dumps(lines)
    about = [line["message"] for line in lines if "position 2" in line.get("message", "")]
    counted = [re.findall(r"failed alone (once|\d times)", each) for each in about]
    assert counted == [[], ["once"], ["2 times"], ["3 times"]], "as dead-letters shows: not with others in its batch"


def test_on_a_terminal_tracebacks_are_told_unless_somebody_says_no(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert TRACEBACKS not in _observers(tracebacks=None)
    monkeypatch.setattr(stream, "isatty", lambda: True)
    assert TRACEBACKS in _observers(tracebacks=None)
    assert TRACEBACKS not in _observers(tracebacks=False)
