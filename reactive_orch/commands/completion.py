"""`completion`: a script that lets a shell complete commands and options of the script `reactive-orch`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reactive_orch.commands.command import Command
from reactive_orch.commands.parser import Parser, add_database
from reactive_orch.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

PROGRAM = "reactive-orch"
"""Shells complete by the name of a program, so not after `python -m reactive_orch`."""
_CHOICES = re.compile(r"(?m)^(complete .*)( -xka \"[^\"]*\")( -d '.*)$")
SHELLS = ("bash", "zsh", "fish")


async def _completion(options: argparse.Namespace, _url: str) -> None:
    try:
        import shtab
    except ImportError as error:
        msg = "completion needs another package: pip install 'reactive_orch[cli]' (shtab is missing)"
        raise ConfigError(msg) from error
    script = shtab.complete(_all_of_it(options.commands), options.shell)
    print(_CHOICES.sub(_undescribed, script) if options.shell == "fish" else script)


def _undescribed(choices: re.Match[str]) -> str:
    """Return fish's list of an option's values without the option's description, which it would show beside each."""
    return f"{choices[1]}{choices[2]}\n{choices[1]}{choices[3]}"


def _all_of_it(commands: Mapping[str, Command]) -> Parser:
    """Return one parser for the worker and all commands."""
    from reactive_orch.commands import run

    parser = Parser(prog=PROGRAM, description="Run one worker of a replica set.")
    run.add_arguments(parser)
    add_database(parser)
    words = parser.add_subparsers()
    for word, command in commands.items():
        of_word = words.add_parser(word, help=command.description, description=command.description)
        command.add_arguments(of_word)
        if command.needs_database:
            add_database(of_word)
    return parser


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="for which shell")


COMPLETION = Command(
    f"print what completes {PROGRAM} in a shell; docs/reference/commands.md says where it goes",
    _arguments,
    _completion,
    needs_database=False,
)
