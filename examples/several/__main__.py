"""Several replica sets in one process: python -m examples.several, in two terminals if you like.

A replica set is what divides the work. With one for each projection, each is divided, rebalanced and rewound by itself,
and may be run elsewhere without the other. All workers of a node share its connections and its view of the log.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from examples.common import prepared, run
from examples.several.projections import last_pages, visits
from reactive_orch import Config, NewEvent, Node, Worker, append

WALKS = {"ada": ["/", "/shoes", "/cart"], "bob": ["/", "/hats"], "cid": ["/help"]}


async def main() -> None:
    """Append, let each replica set handle what there is, and show what each has made of it."""
    url = await prepared(Path(__file__).with_name("tables.sql"))
    connection = await asyncpg.connect(url)
    for visitor, walk in WALKS.items():
        visit = [
            NewEvent(aggregate_type="Visitor", aggregate_id=visitor, event_type="PageVisited", payload={"page": page})
            for page in walk
        ]
        await append(connection, visit)

    async with Node(Config(database_url=url)) as node, asyncio.TaskGroup() as tasks:
        workers = [Worker(node, each.name, [each], until_idle=True) for each in (last_pages, visits)]
        for worker in workers:
            tasks.create_task(worker.run())
    for worker in workers:
        print(f"replica set {worker.replica_set} has handled {sum(worker.events_handled.values())} events")

    for visitor, page in await connection.fetch("SELECT visitor, page FROM last_pages ORDER BY 1"):
        print(f"{visitor} is at {page}")
    print(await connection.fetchval("SELECT count(*) FROM visits"), "visits in all")
    await connection.close()


if __name__ == "__main__":
    run(main)
