"""Handlers of classes, in a real worker: who gets what, old versions, what is not of its class."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pydantic
import pytest

from integration_test.harness.checkers import wait_settled
from integration_test.harness.command_line import environment
from integration_test.harness.connections import connected
from integration_test.harness.in_process import run_until_idle, serving
from integration_test.harness.pages import the
from integration_test.harness.processes import ROOT
from integration_test.harness.waiting import wait_until
from reactive_orch import ConfigError, Event, EventTypes, Expected, NewEvent, append, dead_letters, read_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from integration_test.harness.connections import Connection
    from reactive_orch import Projection

TYPED = "docs/typed-events.md"
NOTE = "INSERT INTO noted VALUES ($1, $2)"
events = EventTypes()


@events("Placed", version=3, aggregate_type="Order", id_from="order_id")
@dataclass(frozen=True)
class Placed:
    order_id: str
    customer: str
    total: int


@events("Paid", aggregate_type="Order", id_from="order_id")
class Paid(pydantic.BaseModel):
    order_id: str
    lines: list[dict[str, int]] = []


@events("Shipped", aggregate_type="Order", id_from="order_id")
class Shipped(msgspec.Struct):
    order_id: str


@events.upcast(Placed, 1)
def _(payload: dict[str, Any]) -> dict[str, Any]:
    return {**payload, "customer": payload["name"]}


@events.upcast(Placed, 2)
def _(payload: dict[str, Any]) -> dict[str, Any]:
    return {"total": 0, **payload}


def of_each() -> Projection:
    noting = events.projection("noting", retries=0)

    @noting.on(Placed)
    async def placed(event: Placed, tx: Connection) -> None:
        await tx.execute(NOTE, event.order_id, f"{event.customer} {event.total}")

    @noting.on(Paid, Shipped)
    async def moved(event: Paid | Shipped, tx: Connection, envelope: Event) -> None:
        assert envelope.aggregate_id == event.order_id
        await tx.execute(NOTE, event.order_id, f"{type(event).__name__} {envelope.replayed}")

    return noting


def of_old() -> Projection:
    """Return it as it was before version 3 of Placed."""
    types = EventTypes()
    types("Placed", version=2)(Placed)
    types("Paid")(Paid)
    types("Shipped")(Shipped)
    noting = types.projection("noting", retries=0)

    @noting.on(Placed, Paid, Shipped)
    async def none(_event: Placed | Paid | Shipped, _tx: Connection) -> None:
        raise AssertionError

    return noting


def of_batches() -> Projection:
    @events.batch("noting", Placed, Paid, Shipped, retries=0)
    async def noting(orders: Sequence[Placed | Paid | Shipped], tx: Connection, envelopes: Sequence[Event]) -> None:
        rows = [(e.aggregate_id, type(order).__name__) for order, e in zip(orders, envelopes, strict=True)]
        await tx.executemany(NOTE, rows)

    return noting


def placed(order: str, version: int, **payload: object) -> NewEvent:
    return NewEvent(
        aggregate_type="Order", aggregate_id=order, event_type="Placed", event_version=version, payload=payload
    )


@pytest.fixture
async def connection(database: str) -> AsyncIterator[Connection]:
    async with connected(database) as made:
        await made.execute("CREATE TABLE noted (order_id text, what text)")
        yield made


async def noted(connection: Connection) -> list[tuple[str, str]]:
    return [tuple(row) for row in await connection.fetch("SELECT * FROM noted ORDER BY 1")]


async def test_each_handler_gets_objects_of_its_classes(database: str, connection: Connection) -> None:
    await append(connection, [events.new(Placed("1", "ada", 7), metadata={"tenant": "t"}), events.new(Shipped("2"))])
    other = NewEvent(aggregate_type="Order", aggregate_id="4", event_type="Other")
    assert await events.append(connection, [Paid(order_id="3"), other], Expected.ANY) == [3, 4]
    with pytest.raises(TypeError, match="is no class of this registry"):
        await events.append(connection, [object()])
    with pytest.raises(TypeError, match="append takes a list of objects"):
        await events.append(connection, Paid(order_id="3"))  # type: ignore[call-overload]
    await run_until_idle(database, of_each())
    assert await noted(connection) == [("1", "ada 7"), ("2", "Shipped False"), ("3", "Paid False")]
    (stored,) = await read_stream(connection, "Order", "1")
    assert (stored.event_version, stored.metadata["tenant"]) == (3, "t")
    assert events.decode(stored) == Placed("1", "ada", 7)


async def test_older_versions_are_upcast(database: str, connection: Connection) -> None:
    await append(connection, [placed("1", 1, order_id="1", name="ada"), placed("2", 2, order_id="2", customer="bob")])
    await run_until_idle(database, of_each())
    assert await noted(connection) == [("1", "ada 0"), ("2", "bob 0")]


BAD = {
    "type": (
        placed("type", 3, order_id="1", customer="ada", total="much"),
        "Placed version 3: Expected `int`, got `str` - at `$.total`",
    ),
    "field": (
        placed("field", 2, order_id="1"),
        "Placed version 2: upcast to 3, Object missing required field `customer`",
    ),
    "upcaster": (
        placed("upcaster", 1, order_id="1"),
        "Placed version 1: its upcaster from version 1 failed: KeyError: 'name'",
    ),
    "newer": (
        placed("newer", 4),
        "Placed version 4: this code knows it up to version 3; deploy what knows it, then retry the key",
    ),
    "older": (
        placed("older", 0),
        "Placed version 0: no upcaster from it is registered; write one, @events.upcast(Placed, 0)",
    ),
    "model": (
        NewEvent(aggregate_type="Order", aggregate_id="model", event_type="Paid", payload={"lines": [{"pen": "x"}]}),
        "Paid version 1: $.order_id: Field required; $.lines[0].pen: Input should be a valid integer, "
        "unable to parse string as an integer",
    ),
    "text": (
        NewEvent(aggregate_type="Order", aggregate_id="text", event_type="Shipped", payload=b"{"),
        "Shipped version 1: Input data was truncated",
    ),
}


@pytest.mark.parametrize("made", [of_each, of_batches])
async def test_what_is_not_of_its_class_is_parked_and_says_why(
    database: str, connection: Connection, made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    good = [events.new(Shipped(f"good-{n}")) for n in range(3)]
    await append(connection, [good[0], *(event for event, _ in BAD.values()), *good[1:]])
    await run_until_idle(database, made())
    assert [order for order, _ in await noted(connection)] == ["good-0", "good-1", "good-2"]
    keys = await dead_letters.listed(connection, "test")
    assert {key.key.aggregate_id: key.failure.message for key in keys} == {
        name: says for name, (_, says) in BAD.items()
    }
    assert {(key.state, key.failure.error_type) for key in keys} == {("parked", "Undecodable")}
    (of_code,) = [key.failure.traceback for key in keys if key.key.aggregate_id == "upcaster"]
    assert f'{__file__}", line ' in of_code, "the upcaster's"
    told = "".join(record.getMessage() for record in caplog.records)
    assert "Undecodable" in told
    assert "$.total" not in told, "texts of errors stay in the database"


async def test_a_newer_version_is_handled_by_whom_it_is_deployed_to(database: str, connection: Connection) -> None:
    """Half the keys are first tried by a worker that does not know it."""
    async with serving(database, of_old()), serving(database, of_each()):
        await wait_settled(connection, members=2)
        await append(connection, [placed(f"{n:02}", 3, order_id=f"{n:02}", customer="ada", total=n) for n in range(20)])

        async def all_noted() -> bool:
            return len(await noted(connection)) == 20

        await wait_until(all_noted)
    assert not await dead_letters.listed(connection, "test")


async def test_the_page_appends_handles_and_reads_objects(
    database: str, connection: Connection, tmp_path: Path
) -> None:
    files = {
        "events.py": the("events = EventTypes()", TYPED),
        "orders.py": the("order_status.on(OrderPaid)", TYPED),
        "place.py": the("asyncio.run(place())", TYPED),
    }
    (tmp_path / "shop").mkdir()
    for name, text in files.items():
        (tmp_path / "shop" / name).write_text(text)
    await connection.execute("CREATE TABLE order_status (order_id text, customer text, status text)")
    await connection.execute("CREATE TABLE payments (event_id uuid, paid_at timestamptz)")
    await connection.execute("CREATE TABLE turnover (customer text, total numeric)")
    old = {"id": "4712", "customer": "bob", "total": "7.25"}
    await append(
        connection, [NewEvent(aggregate_type="Order", aggregate_id="4712", event_type="OrderPlaced", payload=old)]
    )
    worker = ("--replica-set", "shop", "--projection", "shop.orders", "--http", "127.0.0.1:0", "--until-idle")
    assert await _python(database, tmp_path, "-m", "shop.place") == "True\n"
    await _python(database, tmp_path, "-m", "reactive_orch", *worker)
    orders = await connection.fetch("SELECT * FROM order_status ORDER BY 1")
    assert [tuple(row) for row in orders] == [("4711", "ada", "paid"), ("4712", "bob", "placed")]
    assert await connection.fetchval("SELECT count(*) FROM payments JOIN reactive_orch.events USING (event_id)") == 1
    assert await connection.fetchval("SELECT sum(total) FROM turnover") == Decimal("87.75")


async def _python(url: str, folder: Path, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=folder,
        env=environment({"DATABASE_URL": url, "PYTHONPATH": str(ROOT)}),
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


async def test_a_projection_without_handlers_is_refused(database: str) -> None:
    with pytest.raises(ConfigError, match="no event comes to 'mute': a projection of event classes needs a handler"):
        await run_until_idle(database, events.projection("mute"))
