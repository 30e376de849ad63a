"""The spans of batches: one each, linked to the producers. Handlers run inside it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.errors import kind_of
from reactive_orch.model import Event
from reactive_orch.model.events import written_at
from reactive_orch.telemetry import span_names as s
from reactive_orch.telemetry.outcomes import error_type_of, outcome_of
from reactive_orch.telemetry.spans import tracer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Link, Span, Tracer

    from reactive_orch.model import EventHandler
    from reactive_orch.model.reports import BatchEnded, Subject

_METADATA = itemgetter(Event._fields.index("metadata_json"))
LINKS_MAX = 100
"""A batch is linked to so many producers at most. Those without a sampled span are left out: nothing would be there."""

_NOTHING: dict[str, str] = {}
_TRACEPARENT = re.compile(r'"traceparent": ?"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f][13579bdf]"')


class _Begun(NamedTuple):
    span: Span
    subject: Subject
    generation: int
    events: Sequence[Event]
    start_ns: int


class Batches:
    """The batches in hand that have a span."""

    def __init__(self) -> None:
        """Start without any."""
        self._open: dict[str, _Begun] = {}

    def context(self, subject: Subject, generation: int, events: Sequence[Event]) -> AbstractContextManager[str | None]:
        """Return the context of a batch: that of its span if there is a tracer, else an empty one."""
        found = tracer.get()
        return tracer.nobodys_context() if found is None else self._inside(found, subject, generation, events)

    @contextmanager
    def _inside(
        self, found: Tracer, subject: Subject, generation: int, events: Sequence[Event]
    ) -> Iterator[str | None]:
        from opentelemetry import context, trace

        start_ns = time.time_ns()
        span = _start(found, subject, generation, events)
        traceparent = tracer.traceparent_of(span)
        if traceparent is not None:
            self._open[traceparent] = _Begun(span, subject, generation, events, start_ns)
        token = context.attach(trace.set_span_in_context(span, context.Context()))
        try:
            yield traceparent
        finally:
            context.detach(token)
            self._open.pop(traceparent or "", None)
            span.end()

    def ended(self, report: BatchEnded) -> None:
        """Complete the span of a batch that is over."""
        begun = self._open.get(report.traceparent or "")
        if begun is None:
            return
        if len(report.events) < len(begun.events):
            begun.span.set_attributes(_extent(report.events))
        if report.replayed:
            begun.span.set_attribute("reactive_orch.replayed", report.replayed)
        if report.failure is not None:
            _fail(begun, report.events, report.failure)
        elif begun.span.is_recording() and (written_s := written_at(report.events[0])) is not None:
            begun.span.set_attribute("reactive_orch.event.age", max(time.time() - written_s, 0.0))


def _fail(begun: _Begun, events: Sequence[Event], failure: BaseException) -> None:
    """Mark a batch's span as failed. One that was not sampled is made anew: no failure is thinned out."""
    facts = {"reactive_orch.outcome": outcome_of(failure), "error.type": error_type_of(failure)}
    found = tracer.get()
    if begun.span.is_recording():
        begun.span.set_attributes(facts)
        tracer.fail(begun.span, facts["error.type"])
    elif found is not None:
        late = _start(found, begun.subject, begun.generation, events, facts, begun.start_ns)
        tracer.fail(late, facts["error.type"])
        late.end()


def _start(  # noqa: PLR0913, PLR0917 - what a span has
    found: Tracer,
    subject: Subject,
    generation: int,
    events: Sequence[Event],
    more: Mapping[str, str] = _NOTHING,
    start_ns: int | None = None,
) -> Span:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind

    facts: dict[str, str | int] = {
        "messaging.system": "reactive_orch",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": subject.log,
        "messaging.consumer.group.name": subject.projection,
        "reactive_orch.replica_set": subject.replica_set,
        **more,
        **_extent(events),
        "reactive_orch.generation": generation,
    }
    kind, name, links = SpanKind.CONSUMER, f"process {subject.projection}", _Producers(events)
    span = found.start_span(
        name, Context(), kind, facts, links, start_ns, record_exception=False, set_status_on_exception=False
    )
    if links.dropped:
        span.set_attribute("reactive_orch.links.dropped", links.dropped)
    return span


def each(subject: Subject, handler: EventHandler) -> EventHandler:
    """Return the handler with a span for each event: only when asked for."""
    name = s.HANDLE.name.replace("{projection}", subject.projection)

    async def handle(event: Event, tx: Any) -> None:
        found = tracer.get()
        if found is None:
            await handler(event, tx)
            return
        attributes: dict[str, str | int] = {
            "reactive_orch.event.position": event.global_position,
            "reactive_orch.event.type": event.event_type,
            "messaging.message.id": str(event.event_id),
        }
        with found.start_as_current_span(
            name, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                await handler(event, tx)
            except BaseException as error:
                tracer.fail(span, kind_of(error))
                raise

    return handle


class _Producers(Sequence["Link"]):
    """Links to the first producers of the events. They are made when they are looked at: only for a sampled span."""

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
        return True  # the SDK asks before it knows whether the span is sampled; the length would make them

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
