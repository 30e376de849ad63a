"""The lines of `append`: JSON objects with the columns' names as keys, and which of them are events.

Payload and metadata are stored as they are written, byte for byte. Read and written again by Python they would lose
spaces, doubled keys, and digits: no float is 12345678901234567.89.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from reactive_orch.errors import ConfigError
from reactive_orch.json_text import JsonText
from reactive_orch.model import NewEvent
from reactive_orch.postgres import appending

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BAD_LINES_SHOWN_MAX = 20
LINE_BYTES_MAX = appending.PAYLOAD_BYTES_MAX
"""Of which nearly all may be payload."""
EVENT_VERSION_MAX = 2**31 - 1
CONVERTED_DIGITS_MAX = 4300
"""Whole numbers that are longer cannot be read by Python, as PostgreSQL gives them: all digits, however it got them."""
NUMERIC_SCALE_MAX = 16_383
"""So many digits after the point are all that PostgreSQL's numbers have."""

REQUIRED = ("aggregate_type", "aggregate_id", "event_type")
_KNOWN = frozenset(field.name for field in fields(NewEvent))
_SPACE = " \t\n\r"


def lines_of(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file that comes in blocks. Raises ConfigError for one that is too long."""
    begun: list[bytes] = []
    number, length = 1, 0
    for block in blocks:
        first, *others = block.split(b"\n")
        begun.append(first)
        length += len(first)
        if length > LINE_BYTES_MAX:
            msg = (
                f"nothing was appended; line {number} is longer than {LINE_BYTES_MAX:,} bytes, more than an event holds"
            )
            raise ConfigError(msg)
        if others:
            line, begun, length = b"".join(begun), [others[-1]], len(others[-1])
            yield line
            del line
            yield from others[:-1]
            number += len(others)
    yield b"".join(begun)


def events_of(lines: Iterable[bytes]) -> Iterator[tuple[int, NewEvent]]:
    """Yield the events of JSON lines with the lines' numbers, empty lines left out; none after the first bad line.

    Raises ConfigError at the end, naming the bad lines.
    """
    bad: list[str] = []
    unnamed = 0
    for number, line in enumerate(lines, start=1):
        try:
            event = event_of(_text(line)) if line.strip() else None
        except (ValueError, RecursionError) as error:
            unnamed += len(bad) == BAD_LINES_SHOWN_MAX
            bad = [*bad, f"line {number}: {error}"][:BAD_LINES_SHOWN_MAX]
        else:
            if event is not None and not bad:
                yield number, event
    if bad:
        more = [f"and {unnamed} more"] if unnamed else []
        msg = f"nothing was appended; {'; '.join(bad + more)}"
        raise ConfigError(msg)


def event_of(line: str) -> NewEvent:
    """Return the event that a JSON object describes, its payload and metadata as given. Raises ValueError."""
    values = _decoded(line)
    if not isinstance(values, dict):
        msg = f"an event is a JSON object, not {line.strip()[:40]}"
        raise ValueError(msg)  # noqa: TRY004 - to the caller it is one kind of mistake
    values = {key: value for key, value in values.items() if value is not None or key == "payload"}
    unknown = sorted(values.keys() - _KNOWN)
    if unknown:
        msg = f"unknown key {', '.join(unknown)}; known are {', '.join(sorted(_KNOWN))}"
        raise ValueError(msg)
    for key in REQUIRED:
        if not isinstance(values.get(key), str) or not values[key]:
            msg = f"{key} is missing or not a non-empty string"
            raise ValueError(msg)
    _check_types(values)
    if "\\u" in line:  # only so written they get past what decodes the line
        _check_characters(values)
    return NewEvent(**{**values, **_as_given(line, values)})


def _as_given(line: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return what is no plain column: payload and metadata as their text in the line, the id as a UUID."""
    texts = _texts_of_members(line)
    given: dict[str, Any] = {"payload": b"{}"}  # as an event from options: what is empty is no JSON
    if "payload" in values:
        given["payload"] = texts["payload"].encode()
    if "metadata" in values:
        _check_numbers(texts["metadata"])
        given["metadata"] = JsonText(texts["metadata"], values["metadata"])
    if "event_id" in values:
        given["event_id"] = UUID(values["event_id"])
    return given


def _texts_of_members(line: str) -> dict[str, str]:
    """Return key → the text of its value. The line is known to be a JSON object; of a doubled key the last counts."""
    texts: dict[str, str] = {}
    at = _after_space(line, line.index("{") + 1)
    while line[at] != "}":
        key, at = _DECODER.raw_decode(line, at)
        begin = _after_space(line, line.index(":", at) + 1)
        _, end = _DECODER.raw_decode(line, begin)
        texts[key] = line[begin:end]
        at = _after_space(line, end)
        if line[at] == ",":
            at = _after_space(line, at + 1)
    return texts


def _after_space(line: str, at: int) -> int:
    while line[at] in _SPACE:
        at += 1
    return at


def _check_types(values: dict[str, Any]) -> None:
    kinds = {"bounded_context": str, "event_version": int, "metadata": dict, "event_id": str}
    kinds |= dict.fromkeys(("trace_id", "correlation_id", "causation_id", "partition_key"), str)
    for key, kind in kinds.items():
        if key in values and (not isinstance(values[key], kind) or isinstance(values[key], bool)):
            msg = f"{key} must be {'an object' if kind is dict else f'of type {kind.__name__}'}"
            raise ValueError(msg)
    if values.get("partition_key") == "":
        msg = "partition_key must not be empty"
        raise ValueError(msg)
    if not 1 <= values.get("event_version", 1) <= EVENT_VERSION_MAX:
        msg = f"event_version must be 1 to {EVENT_VERSION_MAX}"
        raise ValueError(msg)


def _check_characters(values: dict[str, Any]) -> None:
    """Raise ValueError for characters that no text holds: half of a surrogate pair; and, but for the payload, NUL."""
    for text in _parts(values):
        if isinstance(text, str) and (half := _HALF.search(text)):
            msg = f"half of a surrogate pair, \\u{ord(half[0]):04x}, is no character"
            raise ValueError(msg)
    of_columns = {key: value for key, value in values.items() if key != "payload"}
    if any("\x00" in text for text in _parts(of_columns) if isinstance(text, str)):
        msg = "PostgreSQL's text cannot hold the character \\u0000"
        raise ValueError(msg)


def _check_numbers(metadata: str) -> None:
    """Raise ValueError for a number that PostgreSQL does not hold, or that no reader could convert."""
    for number in _parts(_EXACT.decode(metadata)):
        if isinstance(number, Decimal) and not _is_fit(number):
            msg = "metadata holds a number that is too large, or has too many digits"
            raise ValueError(msg)


def _is_fit(number: Decimal) -> bool:
    exponent = number.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -NUMERIC_SCALE_MAX and number.adjusted() < CONVERTED_DIGITS_MAX


def _exact(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # not even that has such an exponent
        return Decimal("Infinity")


def _whole(text: str) -> int:
    """Return a whole number. One with more digits than Python converts is that of a payload: its value is of no use."""
    return int(text) if len(text) < _DIGITS_CONVERTED else 10**_DIGITS_CONVERTED


def _parts(value: Any) -> Iterator[Any]:
    """Return all that a JSON value is made of: its keys, and what is neither list nor object."""
    if isinstance(value, list | dict):
        for part in value:
            yield from _parts(part)
        if isinstance(value, dict):
            yield from _parts(list(value.values()))
    else:
        yield value


def _text(line: bytes) -> str:
    return line.decode(json.detect_encoding(line))


def _decoded(text: str) -> Any:
    return _DECODER.decode(text)


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def checked(text: str) -> str:
    """Return a JSON text as it is. Raises ValueError when it is none."""
    _decoded(text)
    return text.strip(_SPACE)


_DIGITS_CONVERTED = 600
"""Python promises to convert so many; by default they are 4,300."""
_HALF = re.compile("[\ud800-\udfff]")
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_whole)
_EXACT = json.JSONDecoder(parse_float=_exact, parse_int=_exact)
