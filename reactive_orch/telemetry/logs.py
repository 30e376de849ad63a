"""Log lines: one line each but for tracebacks, for people on a terminal, JSON for everything else.

A line says what happened (`event`), to whom, and in which trace; never why in the words of an exception, which hold
values: `errors.kind_of` names it.
"""

from __future__ import annotations

import json
import logging
import sys
import textwrap
import time
import uuid
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, TextIO

from reactive_orch.telemetry import outage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import TextIOBase

INSTANCE_ID = str(uuid.uuid4())
"""This process, in logs and in telemetry: `service.instance.id`."""

FORMATS = ("auto", "text", "json")

COMPLAINTS_MAX = 100

_HEADERS = "opentelemetry.util.re"
"""Its lines quote what it could not read: a password, perhaps."""

FIELDS = ("event", "code", "replica_set", "generation", "member", "projection", "log", "url", "traceback")
"""What a line may carry besides its words and its trace: in JSON, each by its name."""


def log_to(stream: TextIO | TextIOBase, form: str) -> None:
    """Send this package's lines and the complaints of others to a stream. `auto`: text on a terminal, else JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Text() if is_text(stream, form) else Json())
    handler.addFilter(Complaints())
    levels = {"reactive_orch": logging.INFO, "opentelemetry": logging.WARNING}
    if not sys.flags.dev_mode:  # there a traceback is wanted, in as many lines as it has
        levels["asyncio"] = logging.WARNING
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False


def is_text(stream: TextIO | TextIOBase, form: str) -> bool:
    """Tell whether lines of a form are for people."""
    return form == "text" or (form == "auto" and stream.isatty())


class Complaints(logging.Filter):
    """Of OpenTelemetry's lines, lets each pass once, and none about an export: `outage` tells of those.

    Of asyncio's, about a task of a handler that nobody awaited, the first line: the next ones quote the exception.
    """

    def __init__(self) -> None:
        """Begin with nothing said."""
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line is to be written."""
        if record.name == "asyncio":
            record.msg, record.args = record.getMessage().partition("\n")[0], ()
        if not record.name.startswith("opentelemetry"):
            return True
        if (failing := outage.current()) is not None:
            failing.heed(record)
            return False
        if record.name == _HEADERS:
            record.msg, record.args = "OTEL_EXPORTER_OTLP_HEADERS is not NAME=VALUE, with commas between; left out", ()
        words, known = _message(record), len(self._said)
        self._said.add(words)
        return len(self._said) > known and known < COMPLAINTS_MAX


def _context(record: logging.LogRecord) -> dict[str, str]:
    """Return the trace a line belongs to: the one it names, else that of the span it was written in."""
    named = getattr(record, "trace_id", None)
    if named is not None:
        return {"trace_id": named}
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry.trace import get_current_span

    context = get_current_span().get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"} if context.is_valid else {}


def _message(record: logging.LogRecord) -> str:
    return " ".join(record.getMessage().split()) + _exception(record)


def _exception(record: logging.LogRecord) -> str:
    """Return an exception's type and where it was raised."""
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    kind, _, traceback = record.exc_info
    frames = extract_tb(traceback)
    return f": {kind.__name__}" + (f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else "")


class Text(logging.Formatter):
    """For people: time, level, words, and the trace to look for."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        trace = "".join(f" {key}={value}" for key, value in _context(record).items())
        traceback = getattr(record, "traceback", None)
        below = f"\n{textwrap.indent(traceback.rstrip(), '    ')}" if traceback else ""
        return f"{_time(record)} {record.levelname:<7} {_message(record)}{trace}{below}"


class Json(logging.Formatter):
    """For machines: one object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return json.dumps(dict(_pairs(record)), ensure_ascii=False, default=str)


def _pairs(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    yield "time", _time(record)
    yield "level", record.levelname.lower()
    yield "message", _message(record)
    for key in FIELDS:
        if (value := getattr(record, key, None)) is not None:
            yield key, value
    yield from _context(record).items()
    yield "service.instance.id", INSTANCE_ID


def _time(record: logging.LogRecord) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.msecs):03}Z"
