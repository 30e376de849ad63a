"""Standard streams that are closed, or cannot show everything, are no error; a signal is heeded in the first start."""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.command_line import run, started
from integration_test.harness.connections import connected
from integration_test.harness.processes import ROOT
from integration_test.harness.waiting import wait_until
from reactive_orch.embedded import server as embedded

if TYPE_CHECKING:
    from collections.abc import Iterator


async def _shell(command: str, *, closed: str) -> tuple[int | None, bytes]:
    """Run a command of ours with some streams closed; return its exit code and what it says on the others."""
    line = f"exec {shlex.quote(sys.executable)} -m reactive_orch {command} {closed}"
    null, pipe, out = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE, asyncio.subprocess.STDOUT
    process = await asyncio.create_subprocess_shell(line, cwd=ROOT, stdin=null, stdout=pipe, stderr=out)
    said, _ = await process.communicate()
    return process.returncode, said


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", thorough("2>&-"), thorough(">&-"), thorough(">&- 2>&-")])
async def test_closed_streams_are_no_error(closed: str, database: str) -> None:
    worker = f"--replica-set test --until-idle --http 127.0.0.1:0 --database-url {database}"
    for command in (worker, f"status --database-url {database}", f"migrate --database-url {database}"):
        code, said = await _shell(command, closed=closed)
        assert code == 0, (command, said)
        assert b"Error" not in said
    code, _ = await _shell("status --nonsense", closed=closed)
    assert code == 2


async def test_a_closed_standard_input_is_named(database: str) -> None:
    code, said = await _shell(f"append --database-url {database}", closed="<&-")
    assert code == 2
    assert b"append: standard input is closed" in said


async def test_a_standard_input_that_cannot_be_read_is_named(database: str) -> None:
    code, said = await _shell(f"append --database-url {database}", closed="0>/dev/null")
    assert code == 2
    assert said.startswith(b"reactive_orch: append: standard input cannot be read: ")


@pytest.mark.parametrize(
    ("closed", "says"), [("| true", b""), (">/dev/full", b"reactive_orch: appended 1 event, but ")]
)
async def test_what_is_appended_has_not_failed_when_nobody_is_told(database: str, closed: str, says: bytes) -> None:
    """Whoever tries again after a failure would append twice."""
    line = f"{shlex.quote(sys.executable)} -m reactive_orch append --database-url {database} {_ONE} {closed}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-o", "pipefail", "-c", line), cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert (process.returncode, said[: len(says) or None]) == (0, says)
    async with connected(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM reactive_orch.events") == 1


_ONE = "--event-type t --aggregate-type a --aggregate-id 1"


async def test_append_reads_its_input_whatever_else_is_open(database: str) -> None:
    """More descriptors than select() can tell apart, as whoever starts it may have let it inherit."""
    line = json.dumps({"aggregate_type": "a", "aggregate_id": "1", "event_type": "t"})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _MANY_OPEN, "append", "--database-url", database),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate(line.encode())
    assert said == b"appended 1 event\n"


_MANY_OPEN = """
import os, resource, runpy
resource.setrlimit(resource.RLIMIT_NOFILE, (1200, 1200))
for _ in range(1100):
    os.dup(2)
runpy.run_module("reactive_orch", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("encoding", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}])
async def test_what_the_encoding_lacks_is_escaped(encoding: dict[str, Any], database: str) -> None:
    async with connected(database) as connection:
        await connection.execute(
            "INSERT INTO reactive_orch.replica_sets (name) VALUES ('caf\N{LATIN SMALL LETTER E WITH ACUTE}')"
        )
    variables: dict[str, Any] = {"DATABASE_URL": database, "PYTHONCOERCECLOCALE": "0", **encoding}
    assert r"replica set caf\xe9" in (await run("status", **variables)).done()


@pytest.fixture
def data_home() -> Iterator[Path]:
    """A place for data that everybody gets to."""
    home = Path(tempfile.mkdtemp(dir="/tmp"))
    home.chmod(0o755)
    yield home
    embedded.stop(home / "reactive_orch" / "postgres-18")
    shutil.rmtree(home)


async def test_a_signal_while_the_embedded_server_is_made(data_home: Path) -> None:
    """By the variables of the user, root or not; it says in one line what it makes, and where."""
    directory = data_home / "reactive_orch" / "postgres-18"
    worker = ("--replica-set", "test", "--http", "127.0.0.1:0")
    stdin = asyncio.subprocess.DEVNULL
    async with started(*worker, stdin=stdin, XDG_DATA_HOME=str(data_home)) as process:

        async def making() -> bool:
            return any(data_home.glob("reactive_orch/*.unfinished*"))

        await wait_until(making, what="the server is being made")
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        _, err = await process.communicate()
        took_s = time.monotonic() - began
        assert process.returncode == 0, err
        assert f"making the embedded PostgreSQL 18 in {directory}".encode() in err
    assert took_s < 5.0, "it does not wait for the server"
    ended = await run("migrate", XDG_DATA_HOME=str(data_home))
    assert ended.code == 0, ended
    assert embedded.is_running(directory)
