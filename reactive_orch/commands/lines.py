"""The lines of `append`: JSON objects with the columns' names as keys, and which of them are events.

Payload and metadata are stored as they are written, byte for byte. Read and written again by Python they would lose
spaces, doubled keys, and digits: no float is 12345678901234567.89.
"""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from reactive_orch.errors import ConfigError
from reactive_orch.json_text import JsonText
from reactive_orch.model import NewEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BAD_LINES_SHOWN_MAX = 20
EVENT_VERSION_MAX = 2**31 - 1

REQUIRED = ("aggregate_type", "aggregate_id", "event_type")
_KNOWN = frozenset(field.name for field in fields(NewEvent))
_SPACE = " \t\n\r"


def events_of(lines: Sequence[bytes]) -> list[NewEvent]:
    """Return the events of JSON lines, empty lines left out. Raises ConfigError naming every bad line."""
    events: list[NewEvent] = []
    bad: list[str] = []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                events.append(event_of(_text(line)))
        except (ValueError, RecursionError) as error:
            bad.append(f"line {number}: {error}")
    if bad:
        more = [f"and {len(bad) - BAD_LINES_SHOWN_MAX} more"] if len(bad) > BAD_LINES_SHOWN_MAX else []
        msg = f"nothing was appended; {'; '.join(bad[:BAD_LINES_SHOWN_MAX] + more)}"
        raise ConfigError(msg)
    return events


def event_of(line: str) -> NewEvent:
    """Return the event that a JSON object describes, its payload and metadata as given. Raises ValueError."""
    values = _decoded(line)
    if not isinstance(values, dict):
        msg = f"an event is a JSON object, not {json.dumps(values)[:40]}"
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
    return NewEvent(**{**values, **_as_given(line, values)})


def _as_given(line: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return what is no plain column: payload and metadata as their text in the line, the id as a UUID."""
    texts = _texts_of_members(line)
    given: dict[str, Any] = {"payload": b"{}"}  # as an event from options: what is empty is no JSON
    if "payload" in values:
        given["payload"] = texts["payload"].encode()
    if "metadata" in values:
        given["metadata"] = JsonText(texts["metadata"])
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
    "".join(text for text in _parts(values) if isinstance(text, str)).encode()  # half of a surrogate pair is no text
    of_columns = {key: value for key, value in values.items() if key != "payload"}
    if any("\x00" in text for text in _parts(of_columns) if isinstance(text, str)):
        msg = "PostgreSQL's text cannot hold the character \\u0000"
        raise ValueError(msg)
    if any(math.isinf(number) for number in _parts(values.get("metadata")) if isinstance(number, float)):
        msg = "metadata holds a number that is too large"
        raise ValueError(msg)


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


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)
