"""What a command is, and the connection that it uses."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from reactive_orch.commands.database import started_again
from reactive_orch.errors import ReactiveOrchError, Unavailable
from reactive_orch.looking.locks import explained
from reactive_orch.postgres.database import COORDINATION_SETTINGS, LENT_SETTINGS, STATEMENT_TIMEOUT_S, Database

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.grants import Purpose


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the command line."""

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, str], Awaitable[None]]
    """Called with the options and the URI of the database."""
    prepare: Callable[[argparse.Namespace], None] = lambda _: None
    """Called before what it does, outside any event loop. Raises ConfigError."""
    purpose: Callable[[argparse.Namespace], Purpose | None] = lambda _: None
    """What `grants` calls the roles that may do it; None: the owner of the schema alone."""
    needs_database: bool = True
    look: Callable[[argparse.Namespace], Callable[[argparse.Namespace, str], Awaitable[None]] | None] = lambda _: None
    """What is called as `run` is, before `prepare`: for what would be learned of the database only after long."""


def monitors(_: argparse.Namespace) -> Purpose:
    """Return whose command it is: that of whoever looks."""
    return "monitor"


def operates(_: argparse.Namespace) -> Purpose:
    """Return whose command it is: that of whoever acts."""
    return "operator"


@contextlib.asynccontextmanager
async def connected(
    url: str, statements_s: float = STATEMENT_TIMEOUT_S, *, lent: bool = False, first: bool = True
) -> AsyncIterator[AnyConnection]:
    """Connect for one command, outside any pool; its statements end within the time-out. `lent`: to its user's code.

    For its first connection an embedded server that was stopped just now is started again; later it was stopped since.

    Raises Unavailable or ConfigError, and Locked when the block has waited too long for a lock.
    """
    database = Database(url, label="command", connections_max=1, handler_timeout_s=60.0)
    database.shortage.needs = "a command needs one"
    connect = partial(database.connect, "command", statements_s, LENT_SETTINGS if lent else COORDINATION_SETTINGS)
    try:
        connection = await connect()
    except Unavailable:
        if not first or not await started_again(url):
            raise
        connection = await connect()
    try:
        yield connection
    except ReactiveOrchError as error:
        raise await explained(connection, error)  # noqa: B904 - it may be the same, and has its cause
    finally:
        await connection.close(timeout=2)


def operator() -> str:
    """Return who runs a command, for the record: user and host, or the number of a user that has no name here."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on; as in a container with a user id of its own
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
