"""Projections of classes: ordinary ones, whose handlers get objects."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from reactive_orch import ConfigError, EventTypes, Projection, Undecodable, projection
from reactive_orch.model import Filter
from reactive_orch.model.events import replay_of
from reactive_orch.typed.handlers import Options
from tests.typed.test_event_types import event

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reactive_orch import Event

events = EventTypes()


@events("Placed", version=2)
@dataclass
class Placed:
    order_id: str


@events("Paid")
@dataclass
class Paid:
    order_id: str


@dataclass
class Stranger:
    order_id: str


PLACED, PAID = event(b'{"order_id":"1"}', 2), event(b'{"order_id":"2"}', 1, "Paid")


async def test_each_class_has_its_handler() -> None:
    orders = events.projection("orders", aggregate_types=["Order"], retries=3)
    seen: list[Any] = []

    @orders.on(Placed)
    async def placed(order: Placed, tx: Any) -> None:
        seen.append((order, tx))

    @orders.on(Paid)
    async def paid(order: Paid, tx: Any, envelope: Event) -> None:
        seen.append((order, tx, envelope))

    assert isinstance(orders, Projection)
    assert (orders.name, orders.filter, orders.retries) == ("orders", Filter(("Order",), None, ("Paid", "Placed")), 3)
    again = replay_of(PAID)
    await orders(PLACED, "tx")
    await orders(again, "tx")
    assert seen == [(Placed("1"), "tx"), (Paid("2"), "tx", again)]
    assert seen[1][2].replayed
    await placed(Placed("3"), "tx")
    assert seen[2] == (Placed("3"), "tx"), "a handler is a function still"
    with pytest.raises(Undecodable, match="Other version 1: the projection has no handler for it"):
        await orders(event(b"", 1, "Other"), "tx")


async def test_one_handler_may_be_for_several_classes() -> None:
    orders = events.projection("orders")
    seen: list[Any] = []

    @orders.on(Placed, Paid)
    async def either(order: Placed | Paid, _tx: Any) -> None:
        seen.append(order)

    await orders(PAID, None)
    await orders(PLACED, None)
    assert seen == [Paid("2"), Placed("1")]


async def test_a_batch_is_a_sequence_of_objects_in_the_order_of_the_log() -> None:
    seen: list[Any] = []

    @events.batch("index", Placed, Paid, bounded_contexts=["c"])
    async def index(orders: Sequence[Placed | Paid], tx: Any, envelopes: Sequence[Event]) -> None:
        seen.append((orders, tx, envelopes))

    @events.batch("short", Paid)
    async def short(orders: Sequence[Paid], tx: Any) -> None:
        seen.append((orders, tx))

    assert type(index) is Projection
    assert (index.batch, index.filter) == (True, Filter(None, ("c",), ("Paid", "Placed")))
    assert index.handler.__name__ == "index"
    given = [PAID, PLACED, PAID]
    await index(given, "tx")
    await short([PAID], "tx")
    assert seen == [([Paid("2"), Placed("1"), Paid("2")], "tx", given), ([Paid("2")], "tx")]


async def test_two_that_handle_the_same_do_not_know_each_other() -> None:
    first, second = events.projection("first"), events.projection("second")

    @first.on(Placed)
    async def _(_order: Placed, _tx: Any) -> None: ...

    assert second.filter == Filter(None, None, ())
    assert first.filter == Filter(None, None, ("Placed",))


async def _two(_order: Any, _tx: Any) -> None: ...
async def _one(_order: Any) -> None: ...
async def _four(_order: Any, _tx: Any, _event: Any, _more: Any) -> None: ...
def _plain(_order: Any, _tx: Any) -> None: ...


def _on(*classes: Any, handler: Any = _two) -> Callable[[], object]:
    def wrong() -> None:
        orders = events.projection("orders")
        orders.on(Placed)(_two)
        orders.on(*classes)(handler)

    return wrong


wrongly: Any = events
"""For what type checkers would not let pass."""


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (_on(), "name the classes that the handler is for"),
        (_on(Stranger), r'Stranger is no class of this registry: write @events\("…"\) above it'),
        (_on([Placed, Paid]), ".*Paid.* is no class of this registry"),
        (_on(_two), "_two is no class of this registry"),
        (_on(Placed), "Placed has a handler already, so _two has none"),
        (_on(Paid, Paid), "Paid has a handler already, so _two has none"),
        (_on(Paid, handler=_one), r"_one is no async function that takes \(object, tx\) or \(object, tx, event\)"),
        (_on(Paid, handler=_four), "_four is no async function that takes"),
        (_on(Paid, handler=_plain), "_plain is no async function that takes"),
        (lambda: wrongly.batch("orders"), "name the classes"),
        (lambda: wrongly.batch("orders", Stranger), "Stranger is no class"),
        (lambda: wrongly.batch("orders", Paid)(_plain), "_plain is no async function"),
        (lambda: wrongly.projection("orders", retries=-1), "retries must be a whole number"),
        (lambda: wrongly.projection("orders", batch=True), "batch cannot be said: .* `batch` makes one of batches"),
        (lambda: wrongly.batch("orders", Paid, event_types=["Paid"]), "event_types cannot be said: its classes say"),
    ],
)
def test_a_mistake_is_told_at_import_with_the_projection(mistake: Callable[[], object], says: str) -> None:
    with pytest.raises(ConfigError, match=f"projection 'orders': {says}"):
        mistake()


def test_what_may_be_said_of_a_projection_may_be_said_of_a_typed_one() -> None:
    own = set(inspect.signature(projection).parameters) - {"name", "batch", "event_types"}
    assert set(Options.__annotations__) == own


def test_plain_functions_are_handlers_of_a_blocking_projection() -> None:
    labels = events.projection("labels", blocking=True)
    seen: list[Placed] = []

    @labels.on(Placed)
    def note(placed: Placed, _tx: Any) -> None:
        seen.append(placed)

    with pytest.raises(ConfigError, match=r"is no plain function, as blocking=True wants, that takes"):

        @labels.on(Paid)
        async def pay(_paid: Paid, _tx: Any) -> None: ...

    labels.handler(PLACED, None)  # type: ignore[arg-type]
    assert seen == [Placed("1")]
