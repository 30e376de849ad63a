"""The command line: the composition root and the only reader of the environment.

    python -m reactive_orch --replica-set NAME …     run a worker
    python -m reactive_orch migrate|append|status|watch|dead-letters|pause|resume|rewind|replica-sets|trace|grants …

Exit codes: 0 clean stop, 1 failed, 2 wrong usage or configuration, 3 database not reachable at start.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from reactive_orch.commands import COMMANDS
from reactive_orch.commands.database import database_of, role_of
from reactive_orch.commands.parser import EXIT_CODES, Parser, add_database, did_you_mean
from reactive_orch.core.remedies import ours, piped
from reactive_orch.process import interrupts, last_resort
from reactive_orch.process.explaining import explain
from reactive_orch.process.streams import open_streams

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Sequence

    from reactive_orch.commands.command import Command

COLLECT_AFTER = (10_000, 20, 20)
"""After so many new objects Python looks for cycles. An event is a handful of objects, none in a cycle, and all gone
with their batch: with the default of 700 these looks take 8 % of the processor time of a batch of 500."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what went wrong is said in one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    open_streams()
    options: argparse.Namespace | None = None
    try:
        options = _parse(arguments)
        interrupts.raise_again()
        if options.command is not None:
            if (look := options.command.look(options)) is not None:
                _in_loop(partial(_with_address, options, look))
            options.command.prepare(options)
        gc.set_threshold(*COLLECT_AFTER)
        _in_loop(partial(_run, options))
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the user gets one line and an exit code
        return explain(error, None if options is None else partial(_gives_rights, options))
    finally:
        last_resort.stay()
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    program = _program()
    if unreadable := next(
        (argument for argument in arguments if argument.encode(errors="replace").decode() != argument), None
    ):
        Parser(prog=program, description="").error(f"{unreadable!a} is no valid UTF-8")
    if arguments and arguments[0] in COMMANDS:
        command = COMMANDS[arguments[0]]
        options = _command_parser(program, arguments[0], command).read(arguments[1:])
        options.command, options.commands = command, COMMANDS
        return options
    worker_parser = _worker_parser(program)
    misplaced = next((word for word in worker_parser.words(arguments) if word in COMMANDS), None)
    if misplaced is not None and not any(argument.startswith("--replica-set") for argument in arguments):
        worker_parser.error(f"the command comes first: {program} {misplaced} …")
    if arguments and not arguments[0].startswith("-"):
        meant = did_you_mean(arguments[0], COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        worker_parser.error(f"unknown command {arguments[0]!r}{meant}")
    options = worker_parser.read(arguments)
    options.command = None
    return options


def _program() -> str:
    """Return what the program was called by."""
    return "reactive-orch" if Path(sys.argv[0]).name == "reactive-orch" else "python -m reactive_orch"


def _command_parser(program: str, word: str, command: Command) -> Parser:
    parser = Parser(prog=f"{program} {word}", description=command.description)
    command.add_arguments(parser)
    if command.needs_database:
        add_database(parser)
    return parser


def _worker_parser(program: str) -> Parser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {command.description}" for name, command in COMMANDS.items())
    parser = Parser(
        prog=program,
        description="Run one worker of a replica set: the same command, started again anywhere, shares the work.",
        epilog=f"other commands, each with its own --help:\n{listed}\n\n{EXIT_CODES}",
    )
    from reactive_orch.commands import run  # twice as long to import as all that a command needs

    run.add_arguments(parser)
    add_database(parser)
    return parser


def _heed_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what the event loop complains of; not the future of a failed attempt to connect, which asyncpg forgets."""
    error = context.get("exception")
    if not (isinstance(error, ConnectionError) and str(error) == "unexpected connection_lost() call"):
        loop.default_exception_handler(context)


def _gives_rights(options: argparse.Namespace) -> str:
    """Return what gives a command's role the rights that it needs."""
    purpose = "worker" if options.command is None else options.command.purpose(options)
    if purpose is None:
        return "run it as the owner of the schema, or as one who may make it"
    role = role_of(options.database_url, os.environ)
    return f"its owner gives it by `{piped(ours('grants', role=role, **{'for': purpose}))}`"


def _in_loop(do: Callable[[], Awaitable[None]]) -> None:
    async def heeded() -> None:
        asyncio.get_running_loop().set_exception_handler(_heed_loop)
        await do()

    anyio.run(heeded, backend_options={"use_uvloop": find_spec("uvloop") is not None})


async def _with_address(options: argparse.Namespace, do: Callable[[argparse.Namespace, str], Awaitable[None]]) -> None:
    url, _ = await database_of(options.database_url, os.environ)
    await do(options, url)


async def _run(options: argparse.Namespace) -> None:
    if options.command is None:
        from reactive_orch.commands import run

        await run.run(options, os.environ)
    elif not options.command.needs_database:
        await options.command.run(options, "")
    else:
        await _with_address(options, options.command.run)
