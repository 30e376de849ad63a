"""What a command is, and the connection that it uses."""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reactive_orch.postgres.database import COORDINATION_SETTINGS, LENT_SETTINGS, STATEMENT_TIMEOUT_S, Database

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable

    from reactive_orch.postgres.connection import AnyConnection


@dataclass(frozen=True, slots=True)
class Command:
    """One word of the command line."""

    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, str], Awaitable[None]]
    """Called with the options and the URI of the database."""
    prepare: Callable[[argparse.Namespace], None] = lambda _: None
    """Called before anything is started for it, outside any event loop. Raises ConfigError."""


@contextlib.asynccontextmanager
async def connected(
    url: str, statements_s: float = STATEMENT_TIMEOUT_S, *, lent: bool = False
) -> AsyncIterator[AnyConnection]:
    """Connect for one command, outside any pool; its statements end within the time-out. `lent`: to its user's code.

    Raises Unavailable or ConfigError.
    """
    database = Database(url, label="command", connections_max=1, handler_timeout_s=60.0)
    connection = await database.connect("command", statements_s, LENT_SETTINGS if lent else COORDINATION_SETTINGS)
    try:
        yield connection
    finally:
        await connection.close(timeout=2)


def operator() -> str:
    """Return who runs a command, for the record: user and host, or the number of a user that has no name here."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on; as in a container with a user id of its own
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
