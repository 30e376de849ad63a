"""Events from JSON: what is accepted, and each kind of line that is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reactive_orch.commands import lines as read
from reactive_orch.commands.lines import BAD_LINES_SHOWN_MAX, checked, event_of, lines_of
from reactive_orch.errors import ConfigError
from reactive_orch.json_text import text_of
from reactive_orch.model import NewEvent

if TYPE_CHECKING:
    from collections.abc import Iterable

WORDS: dict[str, Any] = {"aggregate_type": "Order", "aggregate_id": "42", "event_type": "Placed"}
PLACED = NewEvent(**WORDS, payload=b"{}")


def lines(*objects: dict[str, Any]) -> list[bytes]:
    return [json.dumps(one).encode() + b"\n" for one in objects]


def events_of(data: Iterable[bytes]) -> list[NewEvent]:
    return [event for _, event in read.events_of(data)]


def test_the_shortest_line() -> None:
    assert events_of(lines(WORDS)) == [PLACED]


def test_a_line_with_everything() -> None:
    event_id = "00000000-0000-0000-0000-000000000007"
    rest: dict[str, Any] = {
        "payload": {"lines": [1]},
        "bounded_context": "shop",
        "event_version": 3,
        "trace_id": "t",
        "correlation_id": "c",
        "causation_id": "d",
        "metadata": {"by": {"name": "me"}},
    }
    expected = NewEvent(**WORDS, **{**rest, "payload": b'{"lines": [1]}'}, event_id=UUID(event_id))
    assert events_of(lines({**WORDS, **rest, "event_id": event_id})) == [expected]


def test_null_is_the_default_except_for_the_payload() -> None:
    nothing = dict.fromkeys(["bounded_context", "event_version", "event_id", "metadata", "trace_id", "causation_id"])
    assert event_of(json.dumps({**WORDS, **nothing})) == PLACED
    assert event_of(json.dumps({**WORDS, "payload": None})).payload_bytes() == b"null"


def test_empty_lines_are_left_out_but_counted() -> None:
    assert [line for line, _ in read.events_of([b"\n", *lines(WORDS), b"  \r\n", *lines(WORDS), b""])] == [2, 4]
    assert events_of([b"\n", *lines(WORDS), b"  \r\n", *lines(WORDS), b""]) == [PLACED, PLACED]
    with pytest.raises(ConfigError, match="line 3: "):
        events_of([b"\n", *lines(WORDS), b"{\n"])


@pytest.mark.parametrize(
    "payload", [0, "", [], {}, False, "a\x00b", {"\x00": 1}, "C:\\u0000", {"deep": [["ü"]]}, 10**30, "\\"]
)
def test_any_json_is_a_payload(payload: object) -> None:
    made = event_of(json.dumps({**WORDS, "payload": payload}))
    assert json.loads(made.payload_bytes()) == payload


@pytest.mark.parametrize(
    "text",
    [
        '{"a":12345678901234567.89,"b":1.10, "b" : 1e2,\t"z":"\\u00e9\\/", "a":-0}',
        "1.10",
        '"\\u0061"',
        "[ 1.0 ,2]",
        "{}",
        " 5 ".strip(),
        "9" * 4300,
        "1e-16383",
    ],
)
@pytest.mark.parametrize("space", ["", " ", "\t "])
def test_payload_and_metadata_are_those_of_the_line(text: str, space: str) -> None:
    words = json.dumps(WORDS)[1:-1]
    metadata = f'{{"of":{text}}}'
    for line in (
        f'{{{space}"payload"{space}:{space}{text}{space},{space}{words}, "metadata":{metadata}}}',
        f'{space}{{"payload": 7, {words}, "metadata":{space}{metadata}{space}, "payload":{text}{space}}}{space}',
    ):
        (one,) = events_of([line.encode()])
        assert one.payload_bytes() == text.encode()
        assert text_of(one.metadata) == metadata


def test_a_payload_has_numbers_as_long_as_it_likes() -> None:
    payload = '{"n": ' + "9" * 5000 + ', "m": 1e-20000}'
    line = f'{json.dumps(WORDS)[:-1]}, "payload": {payload}}}'
    assert event_of(line).payload_bytes() == payload.encode()
    assert checked(payload) == payload


def test_a_backslash_before_u0000_is_no_zero_character() -> None:
    assert event_of(json.dumps({**WORDS, "aggregate_id": "\\u0000"})).aggregate_id == "\\u0000"


NOT_NUMERIC = [b"1e4300", b"1" + b"0" * 4300, b"1e-16384", b"0e-16384", b"1e-99999999999999999999"]


def bad(**values: object) -> bytes:
    return json.dumps({**WORDS, **values}).encode()


HALF = r"half of a surrogate pair, \\ud800, is no character"
ZERO = r"PostgreSQL's text cannot hold the character \\u0000"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "Expecting property name"),
        (b"{} {}", "Extra data"),
        (b"\xff\xfe\xfd", "codec can't decode"),
        (b'{"aggregate_id": "\xc3"}', "codec can't decode"),
        (b"[" * 100_000, ""),
        (b"9" * 5000, "an event is a JSON object, not 9{40}$"),
        (bad()[:-1] + b', "event_version": ' + b"9" * 5000 + b"}", "event_version must be 1 to 2147483647"),
        (b"[1, 2]", r"an event is a JSON object, not \[1, 2\]"),
        (b"7", "an event is a JSON object, not 7"),
        (b"null", "an event is a JSON object, not null"),
        (json.dumps("x" * 100).encode(), 'an event is a JSON object, not "x{39}$'),
        (b"{}", "aggregate_type is missing or not a non-empty string"),
        (bad(aggregate_id=""), "aggregate_id is missing or not a non-empty string"),
        (bad(aggregate_id=42), "aggregate_id is missing or not a non-empty string"),
        (bad(event_type=None), "event_type is missing or not a non-empty string"),
        (bad(type="x", id="y"), "unknown key id, type; known are aggregate_id, .*, trace_id"),
        (bad(global_position=1), "unknown key global_position"),
        (bad(bounded_context=1), "bounded_context must be of type str"),
        (bad(event_version="1"), "event_version must be of type int"),
        (bad(event_version=1.0), "event_version must be of type int"),
        (bad(event_version=True), "event_version must be of type int"),
        (bad(event_version=0), "event_version must be 1 to 2147483647"),
        (bad(event_version=2**31), "event_version must be 1 to 2147483647"),
        (bad(metadata=[]), "metadata must be an object"),
        (bad(metadata="{}"), "metadata must be an object"),
        (bad(trace_id=1), "trace_id must be of type str"),
        (bad(correlation_id={}), "correlation_id must be of type str"),
        (bad(causation_id=False), "causation_id must be of type str"),
        (bad(partition_key=1), "partition_key must be of type str"),
        (bad(partition_key=""), "partition_key must not be empty"),
        (bad(event_id=7), "event_id must be of type str"),
        (bad(event_id="7"), "badly formed hexadecimal UUID string"),
        (bad(aggregate_id="a\x00b"), ZERO),
        (bad(trace_id="\x00"), ZERO),
        (bad(metadata={"a": ["\x00"]}), ZERO),
        (bad(metadata={"\x00": 1}), ZERO),
        (bad(metadata={"a": "\ud800"}), HALF),
        (bad(aggregate_id="\ud800"), HALF),
        (bad(payload="\ud800"), HALF),
        *((bad()[:-1] + b', "metadata": {"a": [%b]}}' % number, "metadata holds a number") for number in NOT_NUMERIC),
        (bad(payload=float("nan")), "NaN is not JSON"),
        (bad(payload=[float("-inf")]), "-Infinity is not JSON"),
    ],
)
def test_each_kind_of_bad_line(line: bytes, complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"^nothing was appended; line 2: .*{complaint}"):
        events_of([*lines(WORDS), line, *lines(WORDS)])


def test_an_empty_event_id_is_refused() -> None:
    with pytest.raises(ConfigError, match="line 1: "):
        events_of([bad(event_id="")])


def test_all_bad_lines_are_named_up_to_a_limit() -> None:
    with pytest.raises(ConfigError) as caught:
        events_of([b"{"] * (BAD_LINES_SHOWN_MAX + 5))
    text = str(caught.value)
    assert [f"line {n}: " in text for n in (1, BAD_LINES_SHOWN_MAX, BAD_LINES_SHOWN_MAX + 1)] == [True, True, False]
    assert text.endswith("; and 5 more")
    with pytest.raises(ConfigError) as caught:
        events_of([b"{"] * BAD_LINES_SHOWN_MAX)
    assert "more" not in str(caught.value)


def test_after_a_bad_line_no_event_is_made_but_all_lines_are_read() -> None:
    found = read.events_of([*lines(WORDS), b"{", *lines(WORDS), b"}"])
    assert next(found) == (1, PLACED)
    with pytest.raises(ConfigError, match=r"line 2: .*; line 4: "):
        next(found)


@given(st.binary(max_size=50), st.integers(1, 7))
def test_lines_are_the_same_however_they_are_cut_into_blocks(data: bytes, size: int) -> None:
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    assert list(lines_of(blocks)) == data.split(b"\n")


def test_a_line_that_is_too_long_is_named_before_all_of_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "LINE_BYTES_MAX", 10)
    blocks = iter([b"0123456789\n", b"\n01234", b"56789", b"0", b"more"])
    with pytest.raises(ConfigError, match="nothing was appended; line 3 is longer than 10 bytes"):
        list(lines_of(blocks))
    assert next(blocks) == b"more"


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats()
objects = st.dictionaries(
    st.sampled_from([*WORDS, "payload", "metadata", "event_id", "event_version", "bounded_context", "trace_id", "x"]),
    scalars | st.dictionaries(st.text(max_size=2), scalars, max_size=2),
)


@given(st.lists(st.binary(max_size=20) | objects.map(lambda one: json.dumps({**WORDS, **one}).encode())))
def test_any_lines_are_events_or_one_complaint(data: list[bytes]) -> None:
    try:
        events = events_of(data)
    except ConfigError:
        return
    for one in events:
        assert isinstance(one.payload_bytes(), bytes)
        json.dumps(dict(one.metadata), allow_nan=False).encode()
