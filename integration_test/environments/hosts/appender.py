"""An application that has appended an event, and does not commit.

python -m integration_test.environments.hosts.appender postgresql://…
"""

from __future__ import annotations

import asyncio
import sys

from integration_test.harness.connections import connected
from integration_test.harness.load import append_events


async def _append(url: str) -> None:
    async with connected(url) as connection, connection.transaction():
        await append_events(connection, 1)
        print("appended", flush=True)  # noqa: T201 - whoever started it waits for that
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_append(sys.argv[1]))
