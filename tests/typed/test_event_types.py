"""The registry: what a class may be, what becomes of a payload of each version, and what is said of a bad one."""

from __future__ import annotations

import datetime as dt
import enum
import subprocess
import sys
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import pydantic
import pytest

from reactive_orch import ConfigError, Event, EventTypes, Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

AT = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Line:
    sku: str
    price: Decimal


@dataclass(frozen=True, slots=True)
class OfPython:
    order: UUID
    lines: list[Line]
    at: dt.datetime
    colour: Colour
    note: str | None = None
    size: tuple[int, int] = (1, 1)
    named: dict[str, Line] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.note == "none":
            msg = "no such note"
            raise ValueError(msg)


class OfMsgspec(msgspec.Struct, rename="camel"):
    order_id: UUID
    total: int
    line: Line | None = None


class OfPydantic(pydantic.BaseModel):
    order: UUID = pydantic.Field(alias="orderId")
    lines: list[Line]
    total: int = 0

    @pydantic.computed_field  # type: ignore[prop-decorator]  # as pydantic has it
    @property
    def count(self) -> int:
        return len(self.lines)

    model_config = pydantic.ConfigDict(extra="forbid")


@pydantic.dataclasses.dataclass
class OfPydanticToo:
    order: UUID
    at: dt.datetime


ORDER = UUID(int=7)
LINE = Line("pen", Decimal("1.10"))
OBJECTS = [
    OfPython(ORDER, [LINE], AT, Colour.RED, None, (2, 3), {"first": LINE}),
    OfMsgspec(ORDER, 3, LINE),
    OfPydantic(orderId=ORDER, lines=[LINE]),
    OfPydanticToo(ORDER, AT),
]


def registry(cls: type, version: int = 1, **of: Any) -> EventTypes:
    types = EventTypes()
    types("Placed", version=version, **of)(cls)
    return types


def event(payload: bytes, version: int = 1, event_type: str = "Placed") -> Event:
    return Event(7, 3, "c", "Order", "42", 1, UUID(int=1), event_type, version, payload, None, None, None, "{}", AT)


def complaint(types: EventTypes, payload: bytes, version: int = 1) -> str:
    with pytest.raises(Undecodable) as caught:
        types.decode(event(payload, version))
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


@pytest.mark.parametrize("written", OBJECTS)
def test_what_is_appended_is_read_again(written: object) -> None:
    types = registry(type(written), version=3)
    new = types.new(written, aggregate_type="Order", aggregate_id="42", partition_key="ada", metadata={"tenant": 1})
    assert (new.event_type, new.event_version, new.aggregate_type, new.aggregate_id) == ("Placed", 3, "Order", "42")
    assert (new.partition_key, new.metadata, new.bounded_context) == ("ada", {"tenant": 1}, "default")
    assert types.decode(event(new.payload, 3)) == written


@pytest.mark.parametrize(
    ("cls", "payload", "says"),
    [
        (OfPython, b"{}", "Object missing required field `order`"),
        (OfPython, b"", "Input data was truncated"),
        (OfPython, b'{"order":"7"}', "Invalid UUID - at `$.order`"),
        (OfMsgspec, b'{"orderId":"%b","total":"3"}' % str(ORDER).encode(), "Expected `int`, got `str` - at `$.total`"),
        (
            OfPydantic,
            b'{"orderId":"%b","lines":[{"sku":"pen"}],"colour":1}' % str(ORDER).encode(),
            "$.lines[0].price: Field required; $.colour: Extra inputs are not permitted",
        ),
        (OfPydanticToo, b'{"order":"%b"}' % str(ORDER).encode(), "$.at: Field required"),
        (OfPydanticToo, b"{", "$: Invalid JSON: EOF while parsing an object at line 1 column 1"),
    ],
)
def test_a_payload_that_is_not_of_its_class_says_where(cls: type, payload: bytes, says: str) -> None:
    assert complaint(registry(cls), payload) == f"Placed version 1: {says}"


def test_of_many_mistakes_some_are_named() -> None:
    types = registry(OfPydantic)
    said = complaint(types, b'{"orderId":"%b","lines":[%b]}' % (str(ORDER).encode(), b",".join([b"{}"] * 10)))
    assert said.count("Field required") == 5
    assert said.endswith("; and 15 more")


def test_dataclasses_are_strict_about_types_and_ignore_what_they_do_not_know() -> None:
    types = registry(Line)
    assert types.decode(event(b'{"sku":"pen","price":"1.10","colour":"red"}')) == LINE
    assert types.decode(event(b'{"sku":"pen","price":1.10}')) == LINE
    assert complaint(types, b'{"sku":7,"price":"1"}').endswith("Expected `str`, got `int` - at `$.sku`")


def test_what_a_class_itself_refuses_is_the_cause() -> None:
    types = registry(OfPython)
    payload = (
        b'{"order":"%b","lines":[],"at":"2026-01-01T00:00:00Z","colour":"red","note":"none"}' % str(ORDER).encode()
    )
    with pytest.raises(Undecodable, match="Placed version 1: no such note") as caught:
        types.decode(event(payload))
    assert type(caught.value.__cause__) is ValueError


# Versions.


def upcasting() -> EventTypes:
    types = registry(Line, version=3)

    @types.upcast(Line, 2)
    def _(payload: dict[str, Any]) -> dict[str, Any]:
        return {"price": payload["prices"][0], **payload}

    @types.upcast(Line, from_version=1)
    def _(payload: dict[str, Any]) -> dict[str, Any]:
        payload["prices"] = [payload.pop("cost")]
        return payload

    return types


def test_older_versions_are_upcast_step_by_step() -> None:
    types = upcasting()
    for version, payload in enumerate([b'{"sku":"pen","cost":"1.10"}', b'{"sku":"pen","prices":["1.10"]}'], 1):
        assert types.decode(event(payload, version)) == LINE
    assert types.decode(event(b'{"sku":"pen","price":"1.10"}', 3)) == LINE


@pytest.mark.parametrize(
    ("version", "payload", "says"),
    [
        (1, b'{"cost":7}', "upcast to 3, Object missing required field `sku`"),
        (1, b"{}", "its upcaster from version 1 failed: KeyError: 'cost'"),
        (1, b'{"sku":"pen","cost":[]}', "upcast to 3, Expected `decimal`, got `array` - at `$.price`"),
        (2, b'{"prices":[]}', "its upcaster from version 2 failed: IndexError: list index out of range"),
        (2, b"{", "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        (4, b"{}", "this code knows it up to version 3; deploy what knows it, then retry the key"),
        (0, b"{}", "no upcaster from it is registered; write one, @events.upcast(Line, 0)"),
    ],
)
def test_an_old_payload_that_cannot_be_read_says_its_version(version: int, payload: bytes, says: str) -> None:
    assert complaint(upcasting(), payload, version) == f"Placed version {version}: {says}"


@pytest.mark.parametrize(
    ("returned", "says"),
    [(None, "its upcaster from version 1 returned None, not the payload"), (AT, "its upcasters made what JSON cannot")],
)
def test_an_upcaster_returns_json(returned: Any, says: str) -> None:
    types = registry(Line, version=2)
    types.upcast(Line, 1)(lambda _: returned)
    assert says in complaint(types, b"{}")


def test_a_type_that_nobody_has_registered_is_named() -> None:
    with pytest.raises(Undecodable, match="Paid version 2: no class of this registry is for it"):
        EventTypes().decode(event(b"{}", 2, "Paid"))


# Appending.


@dataclass
class Shipped:
    order_id: object
    total: int = 0


@pytest.mark.parametrize("order_id", ["seven", 7, UUID(int=7)])
def test_the_aggregate_is_taken_from_the_class(order_id: object) -> None:
    types = registry(Shipped, aggregate_type="Order", id_from="order_id")
    new = types.new(Shipped(order_id))
    assert (new.aggregate_type, new.aggregate_id) == ("Order", str(order_id))
    other = types.new(Shipped(order_id), aggregate_type="Parcel", aggregate_id="8")
    assert (other.aggregate_type, other.aggregate_id) == ("Parcel", "8")


@pytest.mark.parametrize(
    ("of", "new", "says"),
    [
        ({}, Shipped("1"), "Placed: nobody says its aggregate: give aggregate_type and aggregate_id"),
        ({"aggregate_type": "Order"}, Shipped("1"), "Placed: nobody says its aggregate"),
        (
            {"aggregate_type": "Order", "id_from": "order_id"},
            Shipped(None),
            "Shipped.order_id: an aggregate id is text",
        ),
        ({"aggregate_type": "Order", "id_from": "order_id"}, Shipped(True), "a UUID, not bool"),  # noqa: FBT003
        ({"aggregate_type": "Order", "id_from": "order_id"}, Shipped(""), "Placed: nobody says its aggregate"),
        ({}, LINE, r'Line is no class of this registry: write @events\("…"\) above it'),
        ({}, {"a": 1}, "dict is no class of this registry"),
        ({"aggregate_type": "Order", "id_from": "order_id"}, Shipped("1", object()), "Encoding objects of type object"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_appended_is_refused(of: dict[str, Any], new: object, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        registry(Shipped, **of).new(new)


def test_what_could_not_be_read_again_is_not_appended() -> None:
    wrong: Any = "3"
    types = registry(OfMsgspec)
    with pytest.raises(ValueError, match=r"Placed version 1: Expected `int`, got `str` - at `\$.total`"):
        types.new(OfMsgspec(ORDER, wrong), aggregate_type="Order", aggregate_id="1")


# Mistakes, told at import.


class Plain:
    pass


@dataclass
class Inherits(Shipped):
    pass


class Forgotten(Shipped):
    pass


@dataclass
class Unresolved:
    at: Nowhere  # type: ignore[name-defined]  # noqa: F821 - the mistake


class UnresolvedModel(pydantic.BaseModel):
    at: Nowhere  # type: ignore[name-defined]  # noqa: F821 - the mistake


@dataclass
class Ambiguous:
    at: Line | Shipped


def _named(types: Any) -> Callable[[Any], object]:
    return lambda cls: types.projection("orders").on(cls)


def _takes_nothing() -> dict[str, Any]:
    return {}


MISTAKES: list[tuple[Callable[[Any], object], str]] = [
    (
        lambda types: types(Line),
        r'an event class needs the name of its type: write @events\("OrderPlaced"\), not <class',
    ),
    (lambda types: types(""), "needs the name of its type"),
    (lambda types: types("a\x00"), r"needs the name of its type: .*, not 'a\\x00'"),
    (lambda types: types("Paid", version=0), "Paid: version must be a whole number from 1 on, not 0"),
    (lambda types: types("Paid", version=True), "must be a whole number from 1 on, not True"),
    (
        lambda types: types("Placed", version=2)(Shipped),
        "Shipped cannot be Placed: Line is registered as Placed version 3;",
    ),
    (lambda types: types("Paid")(Line), "Line cannot be Paid: Line is registered as Placed version 3;"),
    (
        lambda types: types("Paid")(Plain),
        "Plain is neither a dataclass nor a model of pydantic 2 nor a struct of msgspec",
    ),
    (lambda types: types("Paid")(Forgotten), "Forgotten is neither a dataclass"),
    (
        lambda types: types("Paid", id_from="order")(Shipped),
        "Shipped has no attribute 'order' to take the aggregate id",
    ),
    (lambda types: types.upcast(Shipped, 1), "Shipped is no class of this registry"),
    (
        lambda types: types.upcast(Line, 3)(dict),
        "an upcaster from version 3, but Line is version 3: it is from an older",
    ),
    (lambda types: types.upcast(Line, 0)(dict), "an upcaster from version 0, but"),
    (lambda types: types.upcast(Line, "1")(dict), "an upcaster from version '1', but"),
    (lambda types: [types.upcast(Line, 1)(dict) for _ in range(2)], "an upcaster from version 1 is registered twice"),
    (
        lambda types: types.upcast(Line, 1)(_takes_nothing),
        r"is a plain function that takes \(payload\) and returns it, not",
    ),
    (lambda types: [types.upcast(Line, 1)(dict), _named(types)(Line)], "'orders': Placed: no upcaster from version 2,"),
    (lambda types: [_named(types)(Line), types.upcast(Line, 2)(dict)], "an upcaster from version 2 comes too late"),
    (lambda types: [types("Paid")(Unresolved), _named(types)(Unresolved)], "Unresolved cannot be decoded, .*'Nowhere'"),
    (
        lambda types: [types("Paid")(UnresolvedModel), _named(types)(UnresolvedModel)],
        "UnresolvedModel cannot be decoded",
    ),
    (lambda types: [types("Paid")(Ambiguous), _named(types)(Ambiguous)], "Ambiguous cannot be decoded, .*Type unions"),
]


@pytest.mark.parametrize(("mistake", "says"), MISTAKES)
def test_a_mistake_is_told_at_import(mistake: Callable[[Any], object], says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        mistake(registry(Line, version=3))
    assert "\n" not in str(caught.value)


def test_a_subclass_is_a_class_of_its_own() -> None:
    types = registry(Shipped, aggregate_type="Order", id_from="order_id")
    types("Returned", aggregate_type="Order", id_from="order_id")(Inherits)
    assert types.new(Inherits("1")).event_type == "Returned"


def test_a_dataclass_needs_msgspec_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(ConfigError, match=r"Line are decoded by msgspec: pip install 'reactive_orch\[msgspec\]'"):
        registry(Line)
    registry(OfPydanticToo)


def test_no_library_is_imported_before_a_class_of_it() -> None:
    code = (
        "import sys; from reactive_orch import EventTypes; EventTypes().projection('orders'); "
        "assert not {'msgspec', 'pydantic'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
