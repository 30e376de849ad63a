"""The registry of an application: which class an event of a type and version becomes, and which event an object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, Unpack, overload

from reactive_orch.errors import ConfigError, Undecodable
from reactive_orch.model import Expected, NewEvent
from reactive_orch.model.projections import is_whole
from reactive_orch.typed.event_type import EventType
from reactive_orch.typed.handlers import batching, dispatching

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from uuid import UUID

    from reactive_orch.model import Event, Position
    from reactive_orch.postgres.blocking import BlockingConnection
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.postgres.toolkits import AsyncTransactional, Transactional
    from reactive_orch.typed.handlers import OnBatch, Options, TypedProjection

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T")
Upcaster = TypeVar("Upcaster", bound=Callable[[Any], dict[str, Any] | list[Any]])


class Columns(TypedDict, total=False):
    """What else an event to append may have; `NewEvent` describes them."""

    bounded_context: str
    event_id: UUID | None
    trace_id: str | None
    correlation_id: str | None
    causation_id: str | None
    metadata: Mapping[str, Any]
    partition_key: str | None


class EventTypes:
    """Event types and their classes: dataclasses, models of pydantic 2, structs of msgspec. An application has its own.

    For instance::

        events = EventTypes()

        @events("OrderPlaced", version=2, aggregate_type="Order", id_from="order_id")
        @dataclass(frozen=True)
        class OrderPlaced:
            order_id: str
            customer: str

        @events.upcast(OrderPlaced, from_version=1)
        def _(payload: dict[str, Any]) -> dict[str, Any]:
            return {**payload, "customer": payload["name"]}

    Called, it registers a class as that of a type, at a version. `aggregate_type`, and the aggregate id as the
    attribute `id_from` has it, are what `new` takes where it is not told. That raises ConfigError for a type or a class
    that is registered, and for what is none of either.

    Each type has one class, of its newest version; payloads of older ones are upcast to it. An event of a newer version
    fails in the handler, until code that knows it is deployed.
    """

    def __init__(self) -> None:
        self._by_class: dict[type, EventType] = {}
        self._by_name: dict[str, EventType] = {}

    def __call__(
        self, event_type: str, *, version: int = 1, aggregate_type: str | None = None, id_from: str | None = None
    ) -> Callable[[type[T]], type[T]]:
        """Register a class, as the class says."""
        if not isinstance(event_type, str) or not event_type or "\x00" in event_type:
            msg = f'an event class needs the name of its type: write @events("OrderPlaced"), not {event_type!r}'
            raise ConfigError(msg)
        if not is_whole(version) or version < 1:
            msg = f"{event_type}: version must be a whole number from 1 on, not {version!r}"
            raise ConfigError(msg)

        def register(cls: type[T]) -> type[T]:
            self._demand_new(event_type, cls)
            made = EventType(event_type, version, cls, aggregate_type, id_from)
            self._by_class[cls] = self._by_name[event_type] = made
            return cls

        return register

    def upcast(self, cls: type, from_version: int) -> Callable[[Upcaster], Upcaster]:
        """Let a function make payloads of `from_version` of a class's type those of the next version.

        It takes the decoded JSON and returns it changed, the same object or another. What it raises is a failure of
        the event. Raises ConfigError for a class that is not registered, a version that has an upcaster or is no older
        one, and when a projection handles the class already.
        """
        of = self._known(cls)

        def add(upcaster: Upcaster) -> Upcaster:
            of.add_upcaster(from_version, upcaster)
            return upcaster

        return add

    def projection(self, name: str, **options: Unpack[Options]) -> TypedProjection:
        """Return a projection whose handlers are added by its `on`, each for a class or for several.

        The options are those of `reactive_orch.projection`, but for `event_types`: what has a handler, no more, comes
        to it. Raises ConfigError as that does.
        """
        return dispatching(name, self._known, options)

    @overload
    def batch(self, name: str, a: type[A], /, **options: Unpack[Options]) -> OnBatch[A]: ...
    @overload
    def batch(self, name: str, a: type[A], b: type[B], /, **options: Unpack[Options]) -> OnBatch[A | B]: ...
    @overload
    def batch(
        self, name: str, a: type[A], b: type[B], c: type[C], /, **options: Unpack[Options]
    ) -> OnBatch[A | B | C]: ...
    @overload
    def batch(
        self, name: str, a: type[A], b: type[B], c: type[C], d: type[D], /, **options: Unpack[Options]
    ) -> OnBatch[A | B | C | D]: ...
    @overload
    def batch(self, name: str, /, *classes: type[Any], **options: Unpack[Options]) -> OnBatch[Any]: ...
    def batch(self, name: str, /, *classes: type[Any], **options: Unpack[Options]) -> Any:
        """Make an async function `(objects, tx)` or `(objects, tx, events)` a projection of these classes.

        It gets sequences, in the order of the log. Raises ConfigError as `projection` and `TypedProjection.on` do.
        """
        return batching(name, classes, self._known, options)

    def new(
        self,
        event: object,
        *,
        aggregate_type: str | None = None,
        aggregate_id: str | None = None,
        **columns: Unpack[Columns],
    ) -> NewEvent:
        """Return an event to append, made of an object.

        Raises TypeError for an object of a class that is not registered, for an aggregate id that is none, and where
        nobody says the aggregate; Undecodable, a ValueError, for one that could not be read again; ValueError or
        TypeError for what JSON cannot carry; ConfigError as `TypedProjection.on` does of a class.
        """
        of = self._by_class.get(type(event))
        if of is None:
            msg = _unknown(type(event))
            raise TypeError(msg)
        of_type, of_id = aggregate_type or of.aggregate_type, aggregate_id or of.id_of(event)
        if not of_type or not of_id:
            msg = (
                f"{of.name}: nobody says its aggregate: give aggregate_type and aggregate_id, or let its class say them"
            )
            raise TypeError(msg)
        return NewEvent(
            aggregate_type=of_type,
            aggregate_id=of_id,
            event_type=of.name,
            event_version=of.version,
            payload=of.encode(event),
            **columns,
        )

    @overload
    def append(
        self, connection: AnyConnection | AsyncTransactional, events: Sequence[object], expected: int | Expected = ...
    ) -> Coroutine[Any, Any, list[Position]]: ...
    @overload
    def append(
        self, connection: Transactional | BlockingConnection, events: Sequence[object], expected: int | Expected = ...
    ) -> list[Position]: ...
    def append(self, connection: Any, events: Sequence[object], expected: int | Expected = Expected.ANY) -> Any:
        """Append objects, as `reactive_orch.append` does events, of which there may be some among them.

        Each object's class says its aggregate. Returns and raises what that does, and raises what `new` does.
        """
        from reactive_orch.appending import append

        if isinstance(events, NewEvent) or type(events) in self._by_class:
            msg = f"append takes a list of objects: append(connection, [{type(events).__name__}(…), …])"
            raise TypeError(msg)
        made = [each if isinstance(each, NewEvent) else self.new(each) for each in events]
        return append(connection, made, expected)

    def decode(self, event: Event) -> Any:
        """Return the object that an event is, as of `read_stream`.

        Raises Undecodable, also for an unknown type; ConfigError as `TypedProjection.on` does of a class.
        """
        of = self._by_name.get(event.event_type)
        if of is None:
            msg = f"{event.event_type} version {event.event_version}: no class of this registry is for it"
            raise Undecodable(msg)
        return of.decode(event)

    def _known(self, cls: type) -> EventType:
        try:
            return self._by_class[cls]
        except (KeyError, TypeError):  # a list of classes, perhaps
            raise ConfigError(_unknown(cls)) from None

    def _demand_new(self, event_type: str, cls: type) -> None:
        taken = self._by_name.get(event_type) or self._by_class.get(cls)
        if taken is not None:
            msg = (
                f"{cls.__qualname__} cannot be {event_type}: {taken.cls.__qualname__} is registered as {taken.name} "
                f"version {taken.version}; a type has one class, and a class one type"
            )
            raise ConfigError(msg)


def _unknown(cls: object) -> str:
    return f'{getattr(cls, "__qualname__", cls)} is no class of this registry: write @events("…") above it'
