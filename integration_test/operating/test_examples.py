"""The examples do what their README says, by its commands: what they did is asked of the database, or received."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from examples.booking.saga import payments, request, saga, tell
from examples.outbox.receiver import Receiver, serving
from integration_test.harness import in_process
from integration_test.harness.connections import connected
from integration_test.harness.processes import ACCIDENT, ROOT, Process
from integration_test.harness.waiting import wait_until
from reactive_orch import read_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from integration_test.harness.connections import Connection

EXAMPLES = ROOT / "examples"
SHOP = EXAMPLES / "shop"
ONE_COMMAND = re.findall(r"`python -m (examples\.\w+)`", (EXAMPLES / "README.md").read_text(encoding="utf-8"))


async def _run(*arguments: str, stdin: bytes = b"") -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reactive_orch", *arguments), cwd=ROOT, stdin=subprocess.PIPE
    )
    await process.communicate(stdin)
    assert process.returncode == 0


def example(name: str, url: str, **variables: str) -> Process:
    return Process(name, [sys.executable, "-m", f"examples.{name}"], {"DATABASE_URL": url, **variables})


async def done(name: str, url: str, **variables: str) -> list[str]:
    """Run an example to its clean end and return its lines."""
    process = await example(name, url, **variables).start()
    try:
        assert await process.wait() == 0, process.tail()
    finally:
        await process.end()
    assert not [line for line in process.log if re.search(f"{ACCIDENT}|misspelt", line)], process.tail()
    return process.log


def test_the_readme_lists_each_one() -> None:
    folders = {f"examples.{file.parent.name}" for file in EXAMPLES.glob("*/__main__.py")}
    assert sorted(ONE_COMMAND) == sorted(folders | {"examples.web_shop"})


SHOWN = [
    *("ada has placed 2 orders", "bob has placed 1 orders"),
    *("order 4711 is shipped", "order 4712 is placed", "order 4713 is placed"),
]


async def test_the_shop_by_one_command_on_a_database_without_the_schema(empty_database: str) -> None:
    assert await done("shop", empty_database) == SHOWN


async def test_the_shop_by_its_commands(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute((SHOP / "tables.sql").read_text())
    await _run("append", "--database-url", database, stdin=(SHOP / "events.jsonl").read_bytes())
    projections = ("--projection", "examples.shop.projections")
    await _run(
        "--database-url", database, "--replica-set", "shop", *projections, "--http", "127.0.0.1:0", "--until-idle"
    )
    orders = await connection.fetch("SELECT customer, orders FROM orders_per_customer ORDER BY customer")
    states = await connection.fetch("SELECT order_id, state FROM order_list ORDER BY order_id")
    await connection.close()
    assert [tuple(row) for row in orders] == [("ada", 2), ("bob", 1)]
    assert [tuple(row) for row in states] == [("4711", "shipped"), ("4712", "placed"), ("4713", "placed")]


async def test_an_address_that_cannot_be_is_said_in_one_line() -> None:
    process = await example("shop", "nowhere").start()
    assert await process.wait() == 2
    (line,) = process.log
    assert line.startswith("reactive_orch: the database address is neither a URI")


# The outbox, and an endpoint of the test's own process.


class Endpoint:
    """The example's receiver, behind somebody who counts what is asked, and may interfere."""

    def __init__(self, file: Path) -> None:
        self.receiver = Receiver(file)
        self.asked: list[str] = []
        """The keys, as often as they came."""
        self.refuses = 0
        """So many requests are answered by 503."""
        self.acted: Callable[[str], None] = lambda _: None
        """Called with the key before the answer is sent."""

    async def take(self, request: web.Request) -> web.Response:
        self.asked.append(request.headers["Idempotency-Key"])
        if self.refuses:
            self.refuses -= 1
            return web.Response(status=503)
        answer = await self.receiver.take(request)
        self.acted(self.asked[-1])
        return answer

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        application = web.Application()
        application.router.add_post("/", self.take)
        async with serving(application) as url:
            yield url


async def events_of(url: str, aggregate_type: str) -> list[str]:
    query = "SELECT event_id::text FROM reactive_orch.events WHERE aggregate_type = $1 ORDER BY global_position"
    async with connected(url) as connection:
        return [row[0] for row in await connection.fetch(query, aggregate_type)]


async def test_the_outbox_posts_what_is_committed_to_a_receiver_of_its_own(database: str) -> None:
    said = await done("outbox", database)
    keys = await events_of(database, "Invoice")
    assert sorted(line for line in said if line.startswith("receiver")) == sorted(f"receiver: {k} done" for k in keys)
    assert said[-1] == "posted 3 events"
    async with connected(database) as connection:
        assert await connection.fetchval("SELECT sum(cents) FROM invoices") == 11_600


async def test_a_relay_that_is_killed_before_it_commits_posts_again_and_the_receiver_acts_once(
    database: str, tmp_path: Path
) -> None:
    endpoint = Endpoint(tmp_path / "deeds")
    async with endpoint.serving() as url:
        relay = await example("outbox", database, ENDPOINT=url).start()
        killed: list[str] = []

        def kill(key: str) -> None:
            if not killed:
                killed.append(key)
                relay.send(signal.SIGKILL)

        endpoint.acted = kill
        assert await relay.wait() == -signal.SIGKILL
        assert await done("outbox", database, ENDPOINT=url)
    times = Counter(endpoint.asked)
    assert sorted(times) == sorted(await events_of(database, "Invoice")) == sorted(endpoint.receiver.deeds)
    assert len(times) == 6
    assert times[killed[0]] == 2, "it had been posted, and was not known to be"
    assert max(times.values()) == 2


async def test_an_endpoint_that_is_down_for_a_while_gets_all_the_same(database: str, tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "deeds")
    endpoint.refuses = 4
    async with endpoint.serving() as url:
        assert (await done("outbox", database, ENDPOINT=url))[-1] == "posted 3 events"
    assert len(endpoint.asked) == 4 + 3
    assert sorted(endpoint.receiver.deeds) == sorted(await events_of(database, "Invoice"))
    async with connected(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM reactive_orch.failing_keys") == 0


# Bookings.

REQUESTED = ["BookingRequested", "PaymentRequested"]


async def test_bookings_come_to_their_ends(database: str) -> None:
    said = await done("booking", database)
    assert [line.replace(" ─▶", "").split() for line in said] == [
        ["ada:", *REQUESTED, "PaymentReceived", "BookingConfirmed"],
        ["bob:", "BookingRequested", "BookingCancelled"],
        ["cid:", *REQUESTED, "PaymentFailed", "BookingCancelled"],
        ["dan:", *REQUESTED, "PaymentOverdue", "BookingCancelled"],
    ]
    async with connected(database) as connection:
        held = await connection.fetch("SELECT split_part(booking, '@', 1), until FROM holds")
    assert [tuple(row) for row in held] == [("ada", None)], "what was not paid was given back"


@pytest.fixture
async def house(database: str) -> AsyncIterator[Connection]:
    async with connected(database) as connection:
        await connection.execute((EXAMPLES / "booking" / "tables.sql").read_text())
        yield connection


async def happened(connection: Connection) -> list[str]:
    return [event.event_type for event in await read_stream(connection, "Booking", "ada")]


async def test_a_guest_withdraws_while_the_saga_decides(database: str, house: Connection) -> None:
    """It has read the stream and holds the room, when the stream gets longer: nothing of that remains."""
    await request(house, "ada", "attic", "good", timedelta(days=1))
    async with connected(database) as rival, connected(database) as guest:
        taken = rival.transaction()
        await taken.start()
        await rival.execute("INSERT INTO holds VALUES ('attic', 'rival')")
        async with in_process.serving(database, saga, payments):
            waits = "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
            await wait_until(lambda: house.fetchval(waits), what="the saga waits for the room")
            assert await tell(guest, "ada", "BookingWithdrawn")
            await taken.rollback()

            async def over() -> bool:
                return (await happened(house))[-1] == "BookingCancelled"

            await wait_until(over)
    assert await happened(house) == ["BookingRequested", "BookingWithdrawn", "BookingCancelled"]
    assert await house.fetchval("SELECT count(*) FROM holds") == 0
    assert not await tell(house, "ada", "BookingWithdrawn"), "it is over"


async def test_two_events_of_one_booking_in_one_batch_lead_to_one_end(database: str, house: Connection) -> None:
    await request(house, "ada", "attic", "silent", timedelta())
    for event_type in ("PaymentFailed", "PaymentOverdue"):
        assert await tell(house, "ada", event_type)
    await in_process.run_until_idle(database, saga)
    found = await happened(house)
    assert found[:3] == ["BookingRequested", "PaymentFailed", "PaymentOverdue"]
    assert found.count("BookingCancelled") == 1
    assert await house.fetchval("SELECT count(*) FROM holds") == 0


# Copying, and several replica sets.


async def test_what_is_copied_is_what_is_written_row_by_row(database: str) -> None:
    *told, same = await done("copying", database)
    assert [line.partition(" in ")[0] for line in told] == ["one_by_one: 3000 events", "copied: 3000 events"]
    assert same == "0 rows differ"
    async with connected(database) as connection:
        assert await connection.fetchval("SELECT sum(readings) FROM hours") == 3_000


async def test_each_replica_set_of_a_process_has_its_own_projection(database: str) -> None:
    assert await done("several", database) == [
        "replica set last_pages has handled 6 events",
        "replica set visits has handled 6 events",
        *("ada is at /cart", "bob is at /hats", "cid is at /help"),
        "6 visits in all",
    ]
    async with connected(database) as connection:
        served = await connection.fetch("SELECT replica_set, name FROM reactive_orch.projections ORDER BY 1")
    assert [tuple(row) for row in served] == [("last_pages", "last_pages"), ("visits", "visits")]


async def test_an_article_is_read_by_sqlalchemy_as_soon_as_it_is_handled(database: str) -> None:
    assert await done("sqlalchemy_shop", database) == ["Shoes [8000, 7500]"]


@contextlib.asynccontextmanager
async def on_the_web(name: str, url: str, said: str) -> AsyncIterator[tuple[Process, str]]:
    """Serve an example until the block ends; its address is what it says."""
    process = await example(name, url, PORT="0").start()
    try:
        yield process, (await process.said(said))[0]
        process.send(signal.SIGTERM)
        await process.wait()
        assert "Traceback" not in process.tail(), process.tail()
    finally:
        await process.end()


async def test_fastapi_answers_with_what_a_post_has_changed(database: str) -> None:
    async with (
        on_the_web("fastapi_shop", database, r"http://\S+:\d+") as (_, base),
        aiohttp.ClientSession(base) as client,
    ):

        async def post(path: str, payload: object = None) -> tuple[int, Any]:
            async with client.post(path, json=payload) as response:
                return response.status, await response.json()

        placed = {"customer": "Ada", "total": 120.0}
        row = {"id": "4711", "customer": "Ada", "total": 120.0, "state": "placed"}
        assert await post("/purchases/4711", placed) == (201, row)
        assert (await post("/purchases/4711", placed))[0] == 409
        assert await post("/purchases/4711/pay") == (200, row | {"state": "paid"})
        assert (await post("/purchases/4712/pay"))[0] == 409
        async with client.get("/internal/readyz") as ready:
            assert ready.status == 200


async def test_django_appends_with_its_own_rows_and_the_projection_reads_its_models(database: str) -> None:
    async with on_the_web("django_shop", database, r"http://\S+") as (_, base), aiohttp.ClientSession(base) as client:

        async def post(order: str) -> int:
            async with client.post(f"/customers/ada/orders/{order}") as response:
                return response.status

        assert [await post(order) for order in ("1", "2", "1")] == [202, 202, 409]

        async def shown() -> bool:
            async with client.get("/orders") as response:
                orders: dict[str, dict[str, str]] = await response.json()
            return orders == {key: {"owner": "Ada", "state": "placed"} for key in ("1", "2")}

        await wait_until(shown)
    async with connected(database) as connection:
        assert await connection.fetchval("SELECT count(*) FROM django_shop_customer") == 1
    assert len(await events_of(database, "Delivery")) == 2
