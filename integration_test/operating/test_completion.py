"""What shells offer after `reactive-orch`, asked of the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from integration_test.harness.command_line import run
from integration_test.harness.pages import the

CASES = [
    (("sta",), {"status"}),
    (("dead-letters", "re"), {"retry"}),
    (("status", "--repl"), {"--replica-set"}),
    (("--repl",), {"--replica-set"}),
    (("--on-error", ""), {"park", "halt"}),
    (("stop-embedded", "--database"), set()),
    (("completion", "f"), {"fish"}),
]
BASH = """
source "$1"; shift
complete -p reactive-orch | grep -q -- '-F _shtab_reactive_orch '
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_reactive_orch; printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = "source $argv[1]; set line (string join ' ' -- $argv[2..-1]); complete \"-C$line\""
ZSH = """
fpath=("$1" $fpath); autoload -U compinit && compinit -u -d "$1/dump"
[[ -n $_comps[reactive-orch] ]] && whence -w $_comps[reactive-orch]
"""


async def script(shell: str, folder: Path) -> Path:
    file = folder / f"completion.{shell}"
    file.write_text((await run("completion", shell)).done())
    return file


def asked(shell: str, code: str, *arguments: object) -> list[str]:
    """Return the lines that a shell writes."""
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    alone = {"bash": ["--norc", "-ec"], "fish": ["--no-config", "-c"], "zsh": ["-fc"]}[shell]
    name = [] if shell == "fish" else [shell]
    command = [found, *alone, code, *name, *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


async def test_bash(tmp_path: Path) -> None:
    file = await script("bash", tmp_path)
    for words, offered in CASES:
        assert set(asked("bash", BASH, file, "reactive-orch", *words)) - {""} == offered, words


async def test_fish(tmp_path: Path) -> None:
    file = await script("fish", tmp_path)
    for words, offered in CASES:
        lines = asked("fish", FISH, file, "reactive-orch", *words)
        assert {line.partition("\t")[0] for line in lines} == offered, words
    assert set(asked("fish", FISH, file, "reactive-orch", "--on-error", "")) == {"park", "halt"}, "no description"
    assert any("after the last retry" in line for line in asked("fish", FISH, file, "reactive-orch", "--on-e"))


async def test_the_page_puts_it_where_there_was_nothing(tmp_path: Path) -> None:
    """A home without any of the folders."""
    block = the("reactive-orch completion bash", "docs/reference/commands.md")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "-ec", block], check=False, env={"HOME": str(tmp_path), "PATH": path}, capture_output=True
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert {each.name for each in tmp_path.rglob("*reactive-orch*")} == {
        *("reactive-orch", "_reactive-orch", "reactive-orch.fish")
    }


async def test_zsh_knows_it(tmp_path: Path) -> None:
    """As the page of commands says: in a file of its name, in a folder where zsh looks for functions."""
    (await script("zsh", tmp_path)).rename(tmp_path / "_reactive-orch")
    assert asked("zsh", ZSH, tmp_path) == ["_reactive-orch: function"]
    asked("zsh", 'zsh -n "$1"', tmp_path / "_reactive-orch")


async def test_another_shell_is_named() -> None:
    assert "'tcsh' is none of bash, zsh, fish" in (await run("completion", "tcsh")).complaint()
