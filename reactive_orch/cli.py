"""The command line: the composition root and the only reader of the environment.

    python -m reactive_orch --replica-set NAME …     run a worker
    python -m reactive_orch migrate|append|status|dead-letters|pause|resume|rewind|replica-sets|trace …

Exit codes: 0 clean stop, 1 failed, 2 wrong usage or configuration, 3 database not reachable at start.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

import anyio

from reactive_orch.commands import COMMANDS
from reactive_orch.commands.database import database_of
from reactive_orch.process import last_resort
from reactive_orch.process.explaining import EXIT_CONFIG, explain
from reactive_orch.process.streams import open_streams, say

if TYPE_CHECKING:
    from collections.abc import Sequence

COLLECT_AFTER = (10_000, 20, 20)
"""After so many new objects Python looks for cycles. An event is a handful of objects, none in a cycle, and all gone
with their batch: with the default of 700 these looks take 8 % of the processor time of a batch of 500."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; what went wrong is said in one line on standard error."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    open_streams()
    try:
        options = _parse(arguments)
        if options.command is not None:
            options.command.prepare(options)
        gc.set_threshold(*COLLECT_AFTER)
        anyio.run(_run, options, backend_options={"use_uvloop": find_spec("uvloop") is not None})
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the user gets one line and an exit code
        return explain(error)
    finally:
        last_resort.stay()
    return 0


class _Parser(argparse.ArgumentParser):
    """argparse, with its complaint in one line."""

    def error(self, message: str) -> NoReturn:
        say(f"{message} (--help shows the options)")
        sys.exit(EXIT_CONFIG)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    if unreadable := next(
        (argument for argument in arguments if argument.encode(errors="replace").decode() != argument), None
    ):
        _Parser().error(f"{unreadable!a} is no valid UTF-8")
    if arguments and arguments[0] in COMMANDS:
        command = COMMANDS[arguments[0]]
        parser = _Parser(prog=f"python -m reactive_orch {arguments[0]}", description=command.description)
        command.add_arguments(parser)
        _add_database(parser)
        options = parser.parse_args(arguments[1:])
        options.command = command
        return options
    worker_parser = _worker_parser()
    misplaced = next((argument for argument in arguments if argument in COMMANDS), None)
    if misplaced is not None and not any(argument.startswith("--replica-set") for argument in arguments):
        worker_parser.error(f"the command comes first: python -m reactive_orch {misplaced} …")
    if arguments and not arguments[0].startswith("-"):
        worker_parser.error(f"unknown command {arguments[0]!r}; there are {', '.join(COMMANDS)}")
    options = worker_parser.parse_args(arguments)
    options.command = None
    return options


def _add_database(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database-url",
        metavar="ADDRESS",
        help="postgresql://… or key=value words; otherwise DATABASE_URL, otherwise POSTGRES_HOST, _PORT, _USER, "
        "_PASSWORD, _DB, otherwise the embedded server",
    )


def _worker_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m reactive_orch",
        description="Run one worker of a replica set: the same command, started again anywhere, shares the work.",
        epilog="Other commands: "
        + "; ".join(f"{name} ({command.description})" for name, command in COMMANDS.items())
        + ". Each has its own --help.",
    )
    from reactive_orch.commands import run  # twice as long to import as all that a command needs

    run.add_arguments(parser)
    _add_database(parser)
    return parser


def _heed_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what the event loop complains of; not the future of a failed attempt to connect, which asyncpg forgets."""
    error = context.get("exception")
    if not (isinstance(error, ConnectionError) and str(error) == "unexpected connection_lost() call"):
        loop.default_exception_handler(context)


async def _run(options: argparse.Namespace) -> None:
    asyncio.get_running_loop().set_exception_handler(_heed_loop)
    if options.command is None:
        from reactive_orch.commands import run

        await run.run(options, os.environ)
    else:
        url, _ = await database_of(options.database_url, os.environ)
        await options.command.run(options, url)
