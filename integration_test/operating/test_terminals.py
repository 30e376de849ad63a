"""What a terminal gets of a command, and what a pipe does."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.command_line import run, run_worker
from integration_test.harness.connections import connected
from integration_test.harness.processes import ROOT
from integration_test.harness.terminals import Terminal, on_a_terminal

if TYPE_CHECKING:
    from pathlib import Path

CONTROL = re.compile(r"\x1b\[[\d;]*m")
NAME = "[red]shop[/red]"
"""A user's name for a replica set, which is no markup."""


@pytest.fixture
async def paused(database: str) -> str:
    """A database with a replica set of such a name, whose projection is paused for a reason that looks like markup."""
    assert (await run_worker("--replica-set", NAME, url=database)).code == 0
    of = ("--replica-set", NAME, "--projection", "event_counts")
    (await run("pause", *of, "--reason", "[bold]why[/]\x1b[31m", DATABASE_URL=database)).done()
    return database


def shown(url: str, *arguments: str, columns: int = 80, **environment: str) -> str:
    """Return what a command writes to a terminal of this width."""
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    env = {**kept, "TERM": "xterm-256color", "DATABASE_URL": url, **environment}
    return on_a_terminal([sys.executable, "-m", "reactive_orch", *arguments], env, columns)


async def test_a_terminal_gets_colours_and_what_users_wrote(paused: str) -> None:
    seen = await asyncio.to_thread(shown, paused, "status")
    note = (
        r"note: replica set \[red\]shop\[/red\]: projection event_counts is paused: \[bold\]why\[/\]\\x1b\[31m \(since"
    )
    assert re.search(rf"\x1b\[36m{note}", seen), "the level has its colour"
    assert re.search(r"\x1b\[1mreplica set \[red\]shop\[/red\]: generation", seen)
    piped = (await run("status", DATABASE_URL=paused)).done()
    assert "\x1b" not in piped
    words = re.compile(r"heartbeat .*? s ago|\d+\.\d s old|\d \w+ old")
    assert words.sub("", CONTROL.sub("", seen)) == words.sub("", piped), "nothing is wrapped, cut or taken for markup"


@pytest.mark.parametrize("columns", [40, 200])
async def test_a_table_heeds_the_width_and_loses_nothing(paused: str, columns: int) -> None:
    table = await asyncio.to_thread(shown, paused, "replica-sets", "list", columns=columns)
    plain = CONTROL.sub("", table)
    assert max(map(len, plain.splitlines())) <= columns
    piped = (await run("replica-sets", "list", DATABASE_URL=paused)).done()
    assert sorted("".join(plain.split())) == sorted("".join(piped.split()))
    assert (NAME in plain) == (columns == 200)
    assert re.search(
        r"(?m)^\[red\]shop\[/red\]  0        \d+           [\d-]+ [\d:]+Z  0             event_counts$", piped
    )


@pytest.mark.parametrize(
    ("environment", "colours"), [({"NO_COLOR": "1"}, {"\x1b[1m", "\x1b[0m"}), ({"TERM": "dumb"}, set())]
)
async def test_a_terminal_without_colours(paused: str, environment: dict[str, Any], colours: set[str]) -> None:
    seen = await asyncio.to_thread(lambda: shown(paused, "status", **environment))
    assert set(CONTROL.findall(seen)) == colours
    assert "note: replica set" in seen


async def test_json_is_json_shown_too(paused: str) -> None:
    seen = await asyncio.to_thread(shown, paused, "replica-sets", "list", "--json")
    assert seen == (await run("replica-sets", "list", "--json", DATABASE_URL=paused)).done()


async def test_a_worker_that_does_its_work_has_not_loaded_what_draws(database: str) -> None:
    ended = await run_worker(url=database, PYTHONPROFILEIMPORTTIME="1")
    assert ended.code == 0
    imported = set(re.findall(r"\| +([\w.]+)$", ended.err, re.MULTILINE))
    assert "reactive_orch.runtime.worker" in imported
    assert not {name for name in imported if name.partition(".")[0] in {"rich", "shtab"}}


@pytest.fixture
def without_cli(tmp_path: Path) -> str:
    """The PYTHONPATH of a Python on which the extra `cli` is not installed."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['rich'] = sys.modules['shtab'] = None\n")
    return f"{tmp_path}{os.pathsep}{ROOT}"


async def test_without_the_extra_a_terminal_gets_plain_text(paused: str, without_cli: str) -> None:
    for words in (("status",), ("replica-sets", "list")):
        seen = await asyncio.to_thread(partial(shown, paused, *words, PYTHONPATH=without_cli))
        assert "\x1b" not in seen
        assert NAME in seen
    complaint = (await run("completion", "bash", PYTHONPATH=without_cli)).complaint()
    assert complaint == "completion needs another package: pip install 'reactive_orch[cli]' (shtab is missing)"


async def test_without_the_extra_watch_says_what_is_missing_and_goes_on_in_lines(paused: str, without_cli: str) -> None:
    async with Terminal("watch", DATABASE_URL=paused, PYTHONPATH=without_cli) as terminal:
        await terminal.shows(r"pip install 'reactive_orch\[cli\]'")
        await terminal.shows(r"event_counts is paused")
        assert "\x1b" not in terminal.written
        terminal.send(signal.SIGINT)
        assert await terminal.ended() == 0


async def test_the_same_address_is_asked_for_where_an_option_gave_it(paused: str) -> None:
    by_option, by_variable = await asyncio.gather(
        run("status", "--database-url", paused), run("status", DATABASE_URL=paused)
    )
    assert "    (each of these with the same --database-url)\n" in by_option.done()
    assert "same --database-url" not in by_variable.done()


async def test_of_psql_it_is_said_that_it_needs_the_variable(paused: str) -> None:
    async with connected(paused) as connection:
        await connection.execute("ALTER TABLE reactive_orch.events DISABLE TRIGGER ring")
    ended = await run("doctor", "--database-url", paused)
    assert "    (each of these with the same --database-url; psql has it from DATABASE_URL)\n" in ended.out


async def test_times_are_those_of_the_log_whatever_the_zone_of_the_machine(paused: str) -> None:
    async with connected(paused) as connection:
        paused_at = await connection.fetchval("SELECT state_since FROM reactive_orch.projections")
    said = (await run("status", DATABASE_URL=paused, TZ="Asia/Tokyo")).done()
    assert f"paused since {paused_at:%Y-%m-%d %H:%M:%S}Z by" in said


async def test_append_says_that_it_reads_from_a_terminal(database: str) -> None:
    own, others = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "reactive_orch", "append"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database},
        stdin=others,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        said = await asyncio.to_thread(process.stderr.readline)
        assert said == (
            b"reactive_orch: append: events are read from standard input, a JSON object a line; Ctrl-D ends them\n"
        )
        os.write(own, b'{"aggregate_type": "Order", "aggregate_id": "1", "event_type": "Placed"}\n\x04')
        out, _ = await asyncio.to_thread(process.communicate)
        assert (process.returncode, out) == (0, b"appended 1 event\n")
    finally:
        process.kill()
        os.close(own)
        os.close(others)
