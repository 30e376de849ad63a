"""The words: projections and their mistakes, events as handlers and writers see them."""

from __future__ import annotations

import datetime as dt
import functools
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_orch import demo
from reactive_orch.errors import ConfigError
from reactive_orch.model import Event, Filter, Holder, NewEvent, Projection, check_name, projection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


async def handle(event: Event, tx: object) -> None:
    """Do nothing."""


async def produce(event: Event, tx: object) -> AsyncIterator[Event]:  # noqa: ARG001 - as a handler
    yield event


class Handler:
    async def __call__(self, event: Event, tx: object) -> None:
        pass


def event(payload: bytes = b"", metadata: str = "{}") -> Event:
    created = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    return Event(7, 3, "c", "Order", "42", 1, UUID(int=1), "Placed", 1, payload, None, None, None, metadata, created)


def test_a_decorated_function_is_a_projection_of_everything() -> None:
    assert projection("orders")(handle) == Projection("orders", handle, batch=False, filter=Filter(), concurrency=1)


def test_filters_are_sorted_sets() -> None:
    made = projection("p", aggregate_types=["b", "a", "b"], bounded_contexts=("y",), batch=True, concurrency=3)(handle)
    assert made.filter == Filter(("a", "b"), ("y",))
    assert (made.batch, made.concurrency) == (True, 3)


async def test_a_projection_can_be_called_like_its_handler() -> None:
    seen: list[tuple[Any, Any]] = []

    @projection("p")
    async def remember(event: Event, tx: object) -> None:
        seen.append((event, tx))

    await remember(event(), "tx")
    assert seen == [(event(), "tx")]


@pytest.mark.parametrize("handler", [handle, Handler(), Handler().__call__, functools.partial(handle)])
def test_whatever_can_be_awaited_is_a_handler(handler: Callable[..., Any]) -> None:
    assert projection("p")(handler).handler is handler


@pytest.mark.parametrize(
    ("handler", "name"),
    [(print, "print"), (lambda _event, _tx: None, "<lambda>"), (produce, "produce"), (Event, "Event")],
)
def test_a_handler_that_is_not_async_is_refused(handler: Callable[..., Any], name: str) -> None:
    with pytest.raises(
        ConfigError, match=r"the handler .* is not async; write `async def`, or blocking=True if"
    ) as caught:
        projection("p")(handler)
    assert name in str(caught.value)


def _blocks(_event: Event, _tx: object) -> None: ...


def _yields(_event: Event, tx: object) -> Iterator[object]:
    yield tx


def test_a_plain_function_is_a_handler_that_blocks() -> None:
    made = projection("p", blocking=True)(_blocks)
    assert made == Projection("p", _blocks, blocking=True)
    assert made(None, "whatever the test has") is None


def test_a_handler_that_blocks_is_no_async_one_and_cannot_await_a_connection() -> None:
    with pytest.raises(ConfigError, match=r"projection 'p': the handler handle is async; leave out blocking=True"):
        projection("p", blocking=True)(handle)
    with pytest.raises(ConfigError, match=r"the handler _yields has a `yield`: nothing of it would be run"):
        projection("p", blocking=True)(_yields)  # type: ignore[arg-type]  # the mistake
    asynchronous = SimpleNamespace(execute=handle)
    with pytest.raises(TypeError, match=r"of 'p' is blocking: it takes a BlockingConnection"):
        projection("p", blocking=True)(_blocks)(None, asynchronous)


async def _takes_one(_event: Event) -> None: ...


async def _takes_three(_event: Event, _tx: object, _more: object) -> None: ...


@pytest.mark.parametrize("handler", [_takes_one, _takes_three, functools.partial(handle, tx=None)])
def test_a_handler_that_cannot_be_called_is_refused(handler: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"projection 'p': the handler takes \(event, tx\)"):
        projection("p")(handler)
    with pytest.raises(ConfigError, match=r"projection 'p': the handler takes \(events, tx\)"):
        projection("p", batch=True)(handler)


def test_a_decorator_without_its_name_says_so() -> None:
    with pytest.raises(ConfigError, match=r'write @projection\("handle"\)'):
        projection(handle)  # type: ignore[arg-type]  # the mistake


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_projection_has_a_lane(concurrency: int) -> None:
    with pytest.raises(ConfigError, match=f"concurrency must be at least 1, not {concurrency}"):
        projection("p", concurrency=concurrency)(handle)


def test_a_projection_says_for_itself_what_else_the_process_says() -> None:
    made = projection("p", retries=0, timeout=0.5, on_error="halt")(handle)
    assert (made.retries, made.timeout, made.on_error) == (0, 0.5, "halt")
    plain = projection("p")(handle)
    assert (plain.retries, plain.timeout, plain.on_error) == (None, None, None)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"retries": -1}, "retries must be a whole number from 0 to 1000, not -1"),
        ({"retries": 1.5}, "retries must be a whole number from 0 to 1000, not 1.5"),
        ({"timeout": 0}, "timeout must be 0.001 to 86400 seconds, not 0"),
        ({"timeout": float("nan")}, "timeout must be 0.001 to 86400 seconds, not nan"),
        ({"timeout": "30s"}, "timeout must be 0.001 to 86400 seconds, not '30s'"),
        ({"on_error": "skip"}, "on_error must be park or halt, not 'skip'"),
        ({"concurrency": 2, "exclusive": True}, "an exclusive projection has one lane: concurrency cannot be 2"),
        ({"retries": True}, "retries must be a whole number from 0 to 1000, not True"),
        ({"timeout": True}, "timeout must be 0.001 to 86400 seconds, not True"),
        ({"concurrency": "2", "exclusive": True}, "concurrency must be at least 1, not '2'"),
        ({"concurrency": 0, "timeout": 1e9}, "concurrency must be at least 1, not 0; timeout must be"),
    ],
)
def test_an_option_that_cannot_be_is_refused(option: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"projection 'p': {complaint}"):
        projection("p", **option)(handle)


@pytest.mark.parametrize("wanted", ["Order", [], (), ["\x00"], [7], 7, iter(["Order"])])
def test_a_filter_that_can_match_nothing_is_refused(wanted: Any) -> None:
    with pytest.raises(ConfigError, match="projection 'p': aggregate_types must be a list of names"):
        projection("p", aggregate_types=wanted)
    with pytest.raises(ConfigError, match="projection 'p': bounded_contexts must be a list of names"):
        projection("p", bounded_contexts=wanted)
    with pytest.raises(ConfigError, match="projection 'p': event_types must be a list of names"):
        projection("p", event_types=wanted)


@pytest.mark.parametrize("name", ["a", "a" * 63, "ü" * 31, "orders per customer", "'; DROP TABLE x; --", "数"])
def test_names(name: str) -> None:
    check_name("projection", name)
    assert projection(name)(handle).name == name


@pytest.mark.parametrize("name", ["", "a" * 64, "ü" * 32, "a\nb", "a\x00", "a\u200bb"])
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"projection name .* 1 to 63 bytes of printable characters"):
        projection(name)
    with pytest.raises(ConfigError, match="replica-set name"):
        check_name("replica-set", name)


@pytest.mark.parametrize("name", [3, None, b"orders"])
def test_a_name_is_text(name: Any) -> None:
    with pytest.raises(ConfigError, match="projection name must be text, not "):
        projection(name)


def test_a_name_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(ConfigError, match="printable characters"):
        projection("\udcff")


def test_the_demo_is_a_projection_of_everything() -> None:
    assert (demo.event_counts.name, demo.event_counts.batch, demo.event_counts.filter) == (
        "event_counts",
        True,
        Filter(),
    )


def new(payload: object) -> NewEvent:
    return NewEvent(aggregate_type="Order", aggregate_id="42", event_type="Placed", payload=payload)


@pytest.mark.parametrize(
    ("payload", "stored"),
    [
        (b"\x00\xff", b"\x00\xff"),
        (b"", b""),
        ("", b'""'),
        (None, b"null"),
        ({"a": [1, 2.5, True]}, b'{"a":[1,2.5,true]}'),
        ("grüße", '"grüße"'.encode()),
    ],
)
def test_payloads_are_bytes_or_compact_json(payload: object, stored: bytes) -> None:
    assert new(payload).payload_bytes() == stored


@pytest.mark.parametrize("payload", [object(), {1, 2}, float("nan"), [float("inf")], "\ud800"])
def test_payloads_that_json_cannot_carry(payload: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        new(payload).payload_bytes()


def test_a_new_event_needs_three_words() -> None:
    made = NewEvent(aggregate_type="Order", aggregate_id="42", event_type="Placed")
    assert (made.payload_bytes(), made.bounded_context, made.event_version, made.event_id) == (b"", "default", 1, None)
    assert dict(made.metadata) == {}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.thorough
@given(json_values)
def test_what_is_appended_as_json_is_read_as_json(value: object) -> None:
    assert event(new(value).payload_bytes()).json() == value


@given(st.dictionaries(st.text(), json_values))
def test_metadata_is_decoded(metadata: dict[str, object]) -> None:
    assert event(metadata=json.dumps(metadata)).metadata == metadata


def test_a_payload_that_is_not_json() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        event(b"\x01").json()


@pytest.mark.parametrize(
    ("holder", "text"),
    [
        (
            Holder(pid=7, prepared=None, application="", user="u", age_s=1.26, state="active", query="SELECT 'secret'"),
            "pid 7 of u (no application name), active, open for 1.3 s",
        ),
        (
            Holder(pid=None, prepared="x", application="a", user="u", age_s=0, state="prepared", query=""),
            "prepared transaction 'x' of u (a), prepared, open for 0.0 s",
        ),
    ],
)
def test_a_holder_in_words(holder: Holder, text: str) -> None:
    assert str(holder) == text


@pytest.mark.parametrize(
    "start", ["soon", None, 5, dt.datetime(2026, 1, 1, tzinfo=dt.UTC).replace(tzinfo=None), "2026-01-01"]
)
def test_a_start_that_is_none_is_refused(start: Any) -> None:
    with pytest.raises(ConfigError, match="start must be 'beginning', 'now' or a datetime with its time zone, not "):
        projection("p", start=start)(handle)


async def empty_too_much(_tx: object, _more: object) -> None: ...


@pytest.mark.parametrize("reset", [handle, empty_too_much, print, lambda _: None])
def test_a_reset_hook_that_cannot_be_called_is_refused(reset: Any) -> None:
    with pytest.raises(ConfigError, match=r"reset must be an async function that takes \(tx\), not "):
        projection("p", reset=reset)(handle)
