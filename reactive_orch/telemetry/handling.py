"""What a lane tells of its batches: one span each, linked to the producers, and the metrics of handling."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from reactive_orch.errors import HandlerFailed, Superseded, Unavailable, kind_of
from reactive_orch.model import Event
from reactive_orch.telemetry import metric_names as m
from reactive_orch.telemetry import span_names as s
from reactive_orch.telemetry import spans
from reactive_orch.telemetry.metrics import begin, count, record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from opentelemetry.trace import Link, Span, Tracer

_METADATA = itemgetter(Event._fields.index("metadata_json"))
LINKS_MAX = 100
"""Producers that a batch is linked to; those of spans that were not sampled would lead nowhere."""

ERROR_TYPES_MAX = 50
"""So many types of errors are counted apart, in all: a program may make up new ones for ever."""

_NOTHING: dict[str, str] = {}
_error_types: set[str] = set()
_TRACEPARENT = re.compile(r'"traceparent": ?"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f][13579bdf]"')


class Handling:
    """The batches of one lane. `generation` returns the one its worker is in."""

    def __init__(self, replica_set: str, projection: str, generation: Callable[[], int]) -> None:
        """Start without batches."""
        self._of = (replica_set, projection)
        begin(*self._of)
        self._generation = generation
        self.reached_at = time.time()
        """When the last event handled was appended, or the lane began."""
        self._fixed = {
            "messaging.system": "reactive_orch",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": "events",
            "messaging.consumer.group.name": projection,
            "reactive_orch.replica_set": replica_set,
        }

    @contextmanager
    def batch(self, events: Sequence[Event]) -> Iterator[Callable[[int], None]]:
        """Tell of a batch: the block swaps, handles and commits. Handlers run inside its span.

        Yields what is to be called when the batch ends before its last event, with the number of events it keeps.
        """
        began, began_ns = time.perf_counter(), time.time_ns()
        failure: BaseException | None = None

        def ended_after(kept: int) -> None:
            nonlocal events
            events = events[:kept]
            if span is not None:
                span.set_attributes(_extent(events))

        with self._span(events) as span:
            try:
                yield ended_after
            except BaseException as error:
                failure = error
                raise
            finally:
                self._measured(time.perf_counter() - began, failure, span)
                self._count(events, failure)
                if span is not None and failure is not None:
                    self._fail(span, events, began_ns, failure)

    def read(self, duration_s: float) -> None:
        """Tell of a window read."""
        record(m.READ_DURATION, duration_s, *self._of)

    def unreadable(self, failure: BaseException) -> None:
        """Tell of an event that could not be read."""
        count(m.PROJECTION_ERRORS, *self._of, _counted(_error_type(failure)))

    def _measured(self, duration_s: float, failure: BaseException | None, span: Span | None) -> None:
        error_type = _counted(_error_type(failure)) if failure else ""
        traceparent = None if span is None else spans.traceparent_of(span)
        record(m.HANDLING_DURATION, duration_s, *self._of, error_type, traceparent=traceparent)

    def _count(self, events: Sequence[Event], failure: BaseException | None) -> None:
        count(m.BATCHES, *self._of, _outcome(failure))
        if isinstance(failure, HandlerFailed):
            count(m.PROJECTION_ERRORS, *self._of, _counted(_error_type(failure)))
        if failure is None:
            count(m.EVENTS_HANDLED, *self._of, amount=len(events))
            record(m.BATCH_SIZE, len(events), *self._of)
            self.reached_at = _written_at(events[-1])
            record(m.EVENT_AGE, max(time.time() - _written_at(events[0]), 0.0), *self._of)

    @contextmanager
    def _span(self, events: Sequence[Event]) -> Iterator[Span | None]:
        tracer = spans.tracer()
        if tracer is None:
            with spans.nobodys_context():
                yield None
            return
        from opentelemetry import context, trace

        span = self._start(tracer, events)
        token = context.attach(trace.set_span_in_context(span, context.Context()))
        try:
            yield span
        finally:
            context.detach(token)
            span.end()

    def _fail(self, span: Span, events: Sequence[Event], began_ns: int, failure: BaseException) -> None:
        """Mark a batch's span as failed. One that was not sampled is told anew: no failure is thinned out."""
        facts = {"reactive_orch.outcome": _outcome(failure), "error.type": _error_type(failure)}
        tracer = spans.tracer()
        if span.is_recording():
            span.set_attributes(facts)
            spans.fail(span, facts["error.type"])
        elif tracer is not None:
            late = self._start(tracer, events, facts, began_ns)
            spans.fail(late, facts["error.type"])
            late.end()

    def _start(
        self, tracer: Tracer, events: Sequence[Event], more: Mapping[str, str] = _NOTHING, start_ns: int | None = None
    ) -> Span:
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind

        facts: dict[str, str | int] = {
            **self._fixed,
            **more,
            **_extent(events),
            "reactive_orch.generation": self._generation(),
        }
        kind, name, links = SpanKind.CONSUMER, f"process {self._of[1]}", _Producers(events)
        span = tracer.start_span(
            name, Context(), kind, facts, links, start_ns, record_exception=False, set_status_on_exception=False
        )
        if links.dropped:
            span.set_attribute("reactive_orch.links.dropped", links.dropped)
        return span

    def traced(self, handler: Callable[[Event, Any], Awaitable[None]]) -> Callable[[Event, Any], Awaitable[None]]:
        """Return the handler with a span for each event: only when asked for."""

        async def handle(event: Event, tx: Any) -> None:
            tracer = spans.tracer()
            if tracer is None:
                await handler(event, tx)
                return
            attributes: dict[str, str | int] = {
                "reactive_orch.event.position": event.global_position,
                "reactive_orch.event.type": event.event_type,
                "messaging.message.id": str(event.event_id),
            }
            name = s.HANDLE.name.replace("{projection}", self._of[1])
            with tracer.start_as_current_span(
                name, attributes=attributes, record_exception=False, set_status_on_exception=False
            ) as span:
                try:
                    await handler(event, tx)
                except BaseException as error:
                    spans.fail(span, kind_of(error))
                    raise

        return handle


class _Producers(Sequence["Link"]):
    """Links to the events' producers, the first of them; made when they are looked at: only for a sampled span."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self.dropped = 0
        """How many were left out."""

    @cached_property
    def _links(self) -> list[Link]:
        from opentelemetry.trace import Link, SpanContext, TraceFlags

        # Events of one transaction have one producer and mostly the same metadata, so look at each text once.
        metadata = dict.fromkeys(map(_METADATA, self._events))
        found = list(dict.fromkeys(match.groups() for text in metadata if (match := _TRACEPARENT.search(text))))
        self.dropped = max(len(found) - LINKS_MAX, 0)
        flags, first = TraceFlags(TraceFlags.SAMPLED), found[:LINKS_MAX]
        contexts = (SpanContext(int(trace, 16), int(span, 16), True, flags) for trace, span in first)  # noqa: FBT003
        return [Link(context) for context in contexts if context.is_valid]

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        return len(self._links)

    def __getitem__(self, index: Any) -> Any:
        return self._links[index]


def _extent(events: Sequence[Event]) -> dict[str, int]:
    return {
        "messaging.batch.message_count": len(events),
        "reactive_orch.position.from": events[0].global_position,
        "reactive_orch.position.to": events[-1].global_position,
    }


def _written_at(event: Event) -> float:
    """Return when an event was written, by the clock; now for a time that no clock shows, as -infinity."""
    try:
        return event.created_at.timestamp()
    except (OverflowError, ValueError):
        return time.time()


def _outcome(failure: BaseException | None) -> str:
    match failure:
        case None:
            return "committed"
        case Superseded():
            return "conflict"
        case Unavailable():
            return "unknown"
        case HandlerFailed():
            return "error"
        case _:
            return "cancelled"


def _error_type(failure: BaseException) -> str:
    return "checkpoint_conflict" if isinstance(failure, Superseded) and not failure.__cause__ else kind_of(failure)


def _counted(error_type: str) -> str:
    """Return the type as metrics have it: the conventions' `_OTHER` for what comes after many."""
    if len(_error_types) < ERROR_TYPES_MAX:
        _error_types.add(error_type)
    return error_type if error_type in _error_types else "_OTHER"
