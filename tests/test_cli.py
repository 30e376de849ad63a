"""The command line without a database: one line for each mistake, the right exit code, nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from reactive_orch import cli
from reactive_orch.commands import COMMANDS
from reactive_orch.embedded import server as embedded
from reactive_orch.errors import (
    ConfigError,
    Conflict,
    MissingRight,
    ProjectionFailed,
    ReactiveOrchError,
    Standby,
    Superseded,
    Unavailable,
    UnsafeLog,
)

if TYPE_CHECKING:
    import argparse

NOWHERE = ("--database-url", "postgresql://user:hush@127.0.0.1:1/db")
ROOT = Path(__file__).parents[1]
WORKER = ("--replica-set", "r", *NOWHERE)
VARIABLES = ("DATABASE_URL", *(f"POSTGRES_{name}" for name in ("HOST", "PORT", "USER", "PASSWORD", "DB")))


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def start(**_: object) -> str:
        msg = "would have been started"
        raise AssertionError(msg)

    monkeypatch.setattr(embedded, "start", start)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Return the one line that a command ends with."""
    assert cli.main(arguments) == code
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("reactive_orch: ")
    assert err.count("\n") == 1
    assert "hush" not in err
    return err.removeprefix("reactive_orch: ").rstrip()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: --replica-set (--help shows the options)"),
        (["--nonsense"], "unrecognized arguments: --nonsense (--help"),
        (["--database-url", "x", "status"], "the command comes first: python -m reactive_orch status"),
        (["--until-idle", "status"], "the command comes first: python -m reactive_orch status"),
        (["--projection", "status"], "the following arguments are required: --replica-set"),
        ([*WORKER, "--nonsense"], "unrecognized arguments: --nonsense"),
        (["staus"], "unknown command 'staus'; did you mean status? (--help"),
        (
            ["frobnicate"],
            "unknown command 'frobnicate'; there are migrate, append, status, watch, doctor, dead-letters, pause",
        ),
        ([*WORKER, "--batch", "many"], "argument --batch: 'many' is no whole number"),
        ([*WORKER, "--heartbeat", "2s"], "argument --heartbeat: '2s' is no number of seconds"),
        ([*WORKER, "--projection"], "argument --projection: expected one argument"),
        (["status", "now"], "unrecognized arguments: now"),
        (["migrate", "--partitions", "x"], "argument --partitions: 'x' is no whole number"),
        (["append", "--expected", "last"], "argument --expected: 'last' is neither any, none nor a version"),
        (["append", "--expected=-1"], "argument --expected: '-1' is neither any, none nor a version"),
        (["rewind", "--replica-set", "r"], "the following arguments are required: --projection, --to"),
        (["--replica-set", "", *NOWHERE], "replica-set name ''"),
        (["--replica-set", "x" * 64, *NOWHERE], "replica-set name"),
        ([*WORKER, "--http", "8080"], "--http '8080': give HOST:PORT"),
        ([*WORKER, "--http", ":8080"], "--http ':8080': give HOST:PORT"),
        ([*WORKER, "--http", "localhost:"], "--http 'localhost:': give HOST:PORT"),
        ([*WORKER, "--http", "localhost:x"], "--http 'localhost:x': give HOST:PORT"),
        ([*WORKER, "--http", "localhost:65536"], "--http 'localhost:65536': give HOST:PORT"),
        ([*WORKER, "--batch", "0"], "--batch (batch_events) must be 1 to 100000, not 0"),
        ([*WORKER, "--batch", "0", "--retries", "-1"], "; --retries (retries) must be 0 to 1000, not -1"),
        (
            [*WORKER, "--heartbeat", "5"],
            "--stale-after (stale_after_s) must be at least three heartbeats (15 s), not 10",
        ),
        ([*WORKER, "--stale-after", "nan"], "--stale-after"),
        (["--replica-set", "r", "--database-url", "nowhere"], "the database address is neither a URI"),
        (["--replica-set", "r", "--database-url", ""], "the database address is neither a URI"),
        (["status", "--database-url", "postgresql://user:hush/x@h"], "the database address is not a valid URI"),
        (["status", "--database-url", "host=h password='hush"], "cannot be read as key=value words"),
        (
            ["append", "--event-type", "E", *NOWHERE],
            "append of one event needs --aggregate-type and --aggregate-id too",
        ),
        (
            ["append", "--aggregate-id", "7", *NOWHERE],
            "append of one event needs --aggregate-type and --event-type too",
        ),
        (["--replica-set", "x", "--colour"], "unrecognized arguments: --colour"),
        (["migrate", "--colour"], "unrecognized arguments: --colour"),
        (["append", "--expected", "soon"], "'soon' is neither any, none nor a version"),
        (["append", "--event-type", "T"], "needs --aggregate-type and --aggregate-id too"),
        (["append", "--aggregate-id", "1"], "needs --aggregate-type and --event-type too"),
        ([*WORKER, "--heartbeat", "0"], "--heartbeat (heartbeat_s) must be 0.05 to 3600 seconds, not 0"),
        ([*WORKER, "--heartbeat", "nan"], "--heartbeat (heartbeat_s) must be 0.05 to 3600 seconds, not nan"),
        ([*WORKER, "--stale-after", "inf"], "--stale-after (stale_after_s) must be at most a day"),
        ([*WORKER, "--retries", "-1"], "--retries (retries) must be 0 to 1000, not -1"),
        ([*WORKER, "--http", "127.0.0.1:99999"], "give HOST:PORT"),
        ([*WORKER, "--http", "127.0.0.1:http"], "give HOST:PORT"),
        (["status", "--replica-set", "\udcff"], r"'\udcff' is no valid UTF-8"),
        (["status", "--database-url", "shop"], "neither a URI"),
        (["status", "--database-url", "mysql://host/shop"], "neither a URI"),
        (
            ["status", "--database-url", "host=localhost shop"],
            "as key=value words from its character 15 on",
        ),
        (["status", "--database-url", "host='localhost"], "cannot be read as key=value words from its character 1 on"),
        (["status", "--database-url", "host=localhost port=65536"], "not '65536'"),
        (["status", "--database-url", "postgresql://localhost:none/shop"], "not a valid URI"),
        (["status", "--database-url", "postgresql://localhost:1,localhost:none/shop"], "not a valid URI"),
        (["status", "--database-url", "postgresql://[::1/shop"], "not a valid URI"),
        ([*WORKER, "--projection", "no.such.module"], "importing 'no.such.module' failed: there is none in"),
        ([*WORKER, "--projection", ""], "--projection '': give MODULE or MODULE:FUNCTION"),
        ([*WORKER, "--projection", ".x"], "--projection '.x': give MODULE or MODULE:FUNCTION"),
        ([*WORKER, "--projection", "json"], "--projection json: the module holds no projection"),
        ([*WORKER, "--projection", "json:loads"], "--projection json:loads: json has no projection 'loads'"),
        ([*WORKER, "--projection", "reactive_orch.demo:x"], "reactive_orch.demo has no projection 'x'"),
    ],
)
def test_mistakes(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in complaint(capsys, *arguments)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise RuntimeError('two\\nlines')", "failed: RuntimeError: two lines"),
        ("import no_such_thing", "failed: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("def f(:", "failed: SyntaxError: "),
        ("raise SystemExit(0)", "failed: SystemExit: 0"),
        ("from reactive_orch import projection\n@projection('')\nasync def f(e, tx): ...", "projection name ''"),
        ("from reactive_orch import projection\n@projection('p')\ndef f(e, tx): ...", "the handler f is not async"),
    ],
)
def test_modules_that_fail(
    code: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "failing_projections.py").write_text(code)
    try:
        assert says in complaint(capsys, *WORKER, "--projection", "failing_projections")
    finally:
        sys.modules.pop("failing_projections", None)


@pytest.mark.parametrize("command", ["status", "migrate", "append"])
def test_a_database_that_is_not_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "the database cannot be reached" in complaint(capsys, command, *NOWHERE, code=3)


@pytest.mark.parametrize(
    "variables", [{"DATABASE_URL": NOWHERE[1]}, {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": "1"}]
)
def test_the_environment_says_where_the_database_is(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert "the database cannot be reached" in complaint(capsys, "status", code=3)
    assert "neither a URI" in complaint(capsys, "status", "--database-url", "x"), "the option comes first"


def test_without_any_address_the_embedded_server_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert "would have been started" in complaint(capsys, "status", code=1)


def test_nothing_is_started_for_a_wrong_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--batch (batch_events) must be" in complaint(capsys, "--replica-set", "r", "--batch", "0")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)])
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    assert ("--database-url" in out) is (len(arguments) == 1 or COMMANDS[arguments[0]].needs_database)
    assert not err


def test_grants_are_printed_without_a_database(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["grants", "--role", "shop", "--for", "appender"]) == 0
    assert 'GRANT USAGE ON SCHEMA reactive_orch TO "shop";' in capsys.readouterr().out.splitlines()
    assert "'public' is no role's name" in complaint(capsys, "grants", "--role", "public", "--for", "worker")


def test_a_missing_right_is_told_with_what_gives_it() -> None:
    assert "`python -m reactive_orch grants` prints" in str(MissingRight("permission denied for table x"))


def group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("unhandled errors in a TaskGroup", errors)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("why"), 2, "why"),
        (UnsafeLog("why"), 2, "why"),
        (Standby("why"), 2, "why"),
        (Unavailable("why"), 3, "the database cannot be reached: why"),
        (ProjectionFailed("why"), 1, "why"),
        (Superseded("why"), 1, "why"),
        (Conflict("why"), 1, "why"),
        (ReactiveOrchError("why\n  and how"), 1, "why and how"),
        (group(group(ProjectionFailed("why"))), 1, "why"),
        (group(OSError("other"), group(ValueError("other"), ConfigError("why")), Unavailable("other")), 2, "why"),
    ],
)
def test_errors_in_one_line(
    error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(error, monkeypatch)
    assert complaint(capsys, "status", code=code) == text


@pytest.mark.parametrize("error", [ZeroDivisionError("why"), group(group(ZeroDivisionError("why")), OSError("other"))])
def test_an_unexpected_error_says_where(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(error, monkeypatch)
    text = complaint(capsys, "status", code=1)
    assert text.startswith("unexpected ZeroDivisionError")
    assert "why (python -X dev shows the whole traceback)" in text


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 1), (SystemExit(7), 7), (SystemExit("text"), 1)])
def test_being_ended_is_not_explained(
    error: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(error, monkeypatch)
    assert cli.main(["status"]) == code
    assert not capsys.readouterr().err


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_options: argparse.Namespace) -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(cli, "_run", run)


def test_a_command_does_not_import_what_runs_workers() -> None:
    code = (
        "import sys, reactive_orch.cli; ours = {'reactive_orch.runtime.node', 'reactive_orch.commands.run'}; "
        "assert not ours & sys.modules.keys(), ours & sys.modules.keys(); "
        "from reactive_orch import Node, Worker; assert (Node.__name__, Worker.__name__) == ('Node', 'Worker'); "
        "import reactive_orch; assert not hasattr(reactive_orch, 'Nobody')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)  # noqa: S603


def test_only_who_draws_loads_what_draws() -> None:
    """A worker starts as quickly as without it, and so does whatever writes into a pipe."""
    ours = [sys.executable, "-X", "importtime", "-m", "reactive_orch"]
    for arguments in (WORKER, ("status", *NOWHERE), ("watch", *NOWHERE)):
        ended = subprocess.run([*ours, *arguments], check=False, cwd=ROOT, capture_output=True, text=True)  # noqa: S603
        assert ended.returncode == 3, ended.stderr
        assert not re.search(r"\| +rich$", ended.stderr, re.MULTILINE)
