"""What a mistyped command line is answered with, and what every help says."""

from __future__ import annotations

from importlib import metadata

import pytest

from reactive_orch import cli
from reactive_orch.commands import COMMANDS

EVERY = [[], *([name] for name in COMMANDS)]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("replica-set", "unknown command 'replica-set'; did you mean replica-sets?"),
        ("deadletters", "did you mean dead-letters?"),
        ("--replicaset r", "unrecognized arguments: --replicaset; did you mean --replica-set?"),
        ("--replica-set r --btach=5", "unrecognized arguments: --btach; did you mean --batch?"),
        ("status --jsn", "did you mean --json?"),
        ("status --data x", "unrecognized arguments: --data; did you mean --database-url?"),
        ("--replica-set r --retr 5", "unrecognized arguments: --retr; did you mean --retries?"),
        ("status -v", "unrecognized arguments: -v (--help shows the options)"),
        ("dead-letters lst --replica-set r", "'lst' is none of list, show, retry, skip, discard; did you mean list?"),
        ("--replica-set r --on-error hlat", "--on-error: 'hlat' is none of park, halt; did you mean halt?"),
        ("--replica-set r --log-format xml", "--log-format: 'xml' is none of auto, text, json (--help"),
        ("--replica-set -x", "--replica-set: expected one argument; if '-x' is it, write --replica-set=-x"),
        ("pause --replica-set r --projection --json", "--projection: expected one argument; if '--json' is it"),
        ("pause --replica-set --projection p", "argument --replica-set: expected one argument (--help"),
        ("--replica-set r --batch 1_0", "'1_0' is no whole number"),
        ("--replica-set r --batch ٣", "'٣' is no whole number"),
        ("--replica-set r --batch 1e9", "'1e9' is no whole number"),
        ("--replica-set r --batch=", "'' is no whole number"),
        ("--replica-set r --batch 9999999999999999999", "is no whole number"),
        ("--replica-set r --heartbeat 1_0", "'1_0' is no number of seconds"),
        ("--replica-set r --heartbeat ٣", "'٣' is no number of seconds"),
        ("--replica-set r --heartbeat=", "'' is no number of seconds"),
        ("append --expected ٣", "'٣' is neither any, none nor a version"),
        ("append --expected 99999999999", "'99999999999' is neither any, none nor a version"),
        ("trace last --replica-set r", "argument GENERATION: 'last' is no whole number"),
        ("--replica-set r --http localhost:٣", "give HOST:PORT"),
        ("--replica-set r --http localhost:000080", "give HOST:PORT"),
    ],
)
def test_a_mistyped_word(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert not out
    assert says in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", EVERY)
def test_every_help_has_the_exit_codes(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--help"]) == 0
    assert "exit codes:\n  0  done" in capsys.readouterr().out


@pytest.mark.parametrize("command", EVERY)
def test_every_command_tells_the_version(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*command, "--version"]) == 0
    assert capsys.readouterr() == (f"reactive_orch {metadata.version('reactive_orch')}\n", "")


def test_the_script_calls_itself_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["/somewhere/bin/reactive-orch"])
    assert cli.main(["status", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: reactive-orch status ")
