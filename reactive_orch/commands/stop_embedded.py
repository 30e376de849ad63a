"""`stop-embedded`: the server that is started where no database was named. Its data stay."""

from __future__ import annotations

from functools import partial
from shlex import quote
from typing import TYPE_CHECKING

from reactive_orch.commands.command import Command, connected
from reactive_orch.commands.terminal import confirm, count
from reactive_orch.postgres import sessions
from reactive_orch.process.abandonable import abandonable

if TYPE_CHECKING:
    import argparse


async def _stop_embedded(options: argparse.Namespace, _url: str) -> None:
    from reactive_orch.embedded import server as embedded

    directory = embedded.data_directory()
    if not embedded.is_running(directory):
        there = "its data are" if directory.exists() else "it has never been started; its data would be"
        print(f"the embedded PostgreSQL does not run; {there} in {directory}")
        return
    if not options.yes:
        await _ask(embedded.uri(directory))
    await abandonable(partial(embedded.stop, directory))
    print(
        f"the embedded PostgreSQL is stopped; its data stay in {directory}\n"
        f"rm -r {quote(str(directory))} deletes them, with all events; a worker or command without another address "
        "starts it again"
    )


async def _ask(url: str) -> None:
    """Ask if somebody is connected. Raises ConfigError for a no, and where nobody can be asked."""
    async with connected(url) as connection:
        others = await sessions.others(connection)
    if others:
        await confirm(f"{count(len(others), 'other')} connected: {', '.join(others)}; stop the embedded PostgreSQL?")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask, whoever is connected")


STOP_EMBEDDED = Command("stop the embedded PostgreSQL; its data stay", _arguments, _stop_embedded, needs_database=False)
