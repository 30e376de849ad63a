"""What each example begins and ends with: a database with schema and tables; one line if something goes wrong."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import asyncpg

from reactive_orch import migrate
from reactive_orch.embedded import server
from reactive_orch.process.explaining import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path


async def prepared(tables: Path) -> str:
    """Return the address of a database with the schema and these tables: DATABASE_URL, else the embedded server's."""
    url = os.environ.get("DATABASE_URL")
    if not url:
        url = await asyncio.to_thread(server.start, say=print)
    await migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute(tables.read_text(encoding="utf-8"))  # noqa: ASYNC240 - a small file, before all else
    await connection.close()
    return url


def run(main: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run an example; what it ends with is said as the command line says it, in one line and the exit code."""
    try:
        asyncio.run(main())
    except BaseException as error:  # noqa: BLE001 - Ctrl-C, too
        sys.exit(explain(error))
