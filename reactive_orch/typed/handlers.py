"""Handlers of classes, and the plain handlers that are made of them: decode, then call whoever wants the class.

A handler takes `(object, tx)`, or `(object, tx, event)` for one that needs to know more: position, aggregate, metadata,
whether it is replayed. That of a batch takes sequences, one event for each object.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, TypeVar, overload

from reactive_orch.errors import ConfigError, Undecodable
from reactive_orch.model import Event, Projection, projection
from reactive_orch.model.projections import called, is_async, takes

if TYPE_CHECKING:
    from reactive_orch.model import Hooks, Middleware
    from reactive_orch.model.projections import OnError, ResetHook, Start
    from reactive_orch.typed.event_type import EventType

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Compiled = Callable[[Any, Any], Any]
"""Takes what a plain handler takes: an event, or a batch of them, and the transaction."""


class Options(TypedDict, total=False):
    """What may be said of a projection besides what it handles; `Projection` describes them."""

    aggregate_types: Sequence[str] | None
    bounded_contexts: Sequence[str] | None
    concurrency: int
    retries: int | None
    timeout: float | None
    on_error: OnError | None
    reset: ResetHook | None
    start: Start
    replay: bool
    exclusive: bool
    blocking: bool
    group: str | None
    middleware: Sequence[Middleware]
    batch_middleware: Sequence[Middleware]
    hooks: Sequence[Hooks]


class On(Protocol[T]):
    """Takes a handler of one event, and returns it as it is."""

    @overload
    def __call__(self, handler: Callable[[T, Any], Awaitable[None]], /) -> Callable[[T, Any], Awaitable[None]]: ...
    @overload
    def __call__(
        self, handler: Callable[[T, Any, Event], Awaitable[None]], /
    ) -> Callable[[T, Any, Event], Awaitable[None]]: ...
    @overload
    def __call__(self, handler: Callable[[T, Any], None], /) -> Callable[[T, Any], None]: ...
    @overload
    def __call__(self, handler: Callable[[T, Any, Event], None], /) -> Callable[[T, Any, Event], None]: ...


class OnBatch(Protocol[T_co]):
    """Takes a handler of many events, and makes it a projection."""

    @overload
    def __call__(self, handler: Callable[[Sequence[T_co], Any], Awaitable[None] | None], /) -> Projection: ...
    @overload
    def __call__(
        self, handler: Callable[[Sequence[T_co], Any, Sequence[Event]], Awaitable[None] | None], /
    ) -> Projection: ...


@dataclass(frozen=True, slots=True)
class TypedProjection(Projection):
    """A projection with a handler for each class; those of a type that none is for do not come to it."""

    known: Callable[[Any], EventType] = field(kw_only=True, compare=False, repr=False)
    handlers: dict[str, Compiled] = field(kw_only=True, compare=False, repr=False)
    """Type of an event → what it is given to."""

    @overload
    def on(self, a: type[A], /) -> On[A]: ...
    @overload
    def on(self, a: type[A], b: type[B], /) -> On[A | B]: ...
    @overload
    def on(self, a: type[A], b: type[B], c: type[C], /) -> On[A | B | C]: ...
    @overload
    def on(self, a: type[A], b: type[B], c: type[C], d: type[D], /) -> On[A | B | C | D]: ...
    @overload
    def on(self, *classes: type[Any]) -> On[Any]: ...
    def on(self, *classes: type[Any]) -> Any:
        """Let an async function `(object, tx)` or `(object, tx, event)` handle the events of these classes.

        With `blocking=True` a plain function.

        Where a module is imported, before a worker has the projection: the projection's filter are the types that are
        handled, and is recorded. Raises ConfigError for a class that is not registered or is handled already, for one
        that cannot be decoded, for a gap between upcasters, and for a function that is no such handler.
        """
        types = _ready(self.name, classes, self.known)

        def decorate(handler: Callable[..., Any]) -> Callable[..., Any]:
            for each in types:
                if each.name in self.handlers:
                    msg = f"projection {self.name!r}: {each.name} has a handler already, so {called(handler)} has none"
                    raise ConfigError(msg)
                self.handlers[each.name] = _compiled(self.name, handler, each.decode, blocking=self.blocking)
            only = replace(self.filter, event_types=tuple(sorted(self.handlers)))
            object.__setattr__(self, "filter", only)  # it is being made still: workers take it as it is then
            return handler

        return decorate


def dispatching(name: str, known: Callable[[Any], EventType], options: Options) -> TypedProjection:
    """Return a projection that handles nothing yet."""
    _demand_own(name, options)
    handlers: dict[str, Compiled] = {}

    async def dispatch(event: Event, tx: Any) -> None:
        await _for(event, handlers)(event, tx)

    def dispatch_now(event: Event, tx: Any) -> None:
        _for(event, handlers)(event, tx)

    called_by_lanes: Callable[..., Any] = dispatch_now if options.get("blocking") else dispatch
    called_by_lanes.__name__ = name
    plain = projection(name, **options)(called_by_lanes)
    inherited = {each.name: getattr(plain, each.name) for each in fields(plain)}
    inherited["filter"] = replace(plain.filter, event_types=())
    return TypedProjection(**inherited, known=known, handlers=handlers)


def batching(
    name: str, classes: Sequence[type[Any]], known: Callable[[Any], EventType], options: Options
) -> OnBatch[Any]:
    """Return what makes a function a projection of these classes."""
    _demand_own(name, options)
    decoders = {each.name: each.decode for each in _ready(name, classes, known)}

    def decode(events: Sequence[Event]) -> list[Any]:
        return [_for(event, decoders)(event) for event in events]

    def decorate(handler: Callable[..., Any]) -> Projection:
        blocking = bool(options.get("blocking"))
        compiled = _compiled(name, handler, decode, blocking=blocking)

        async def handle(events: Sequence[Event], tx: Any) -> None:
            await compiled(events, tx)

        def handle_now(events: Sequence[Event], tx: Any) -> None:
            compiled(events, tx)

        called_by_lanes: Callable[..., Any] = handle_now if blocking else handle
        called_by_lanes.__name__ = getattr(handler, "__name__", name)
        return projection(name, batch=True, event_types=list(decoders), **options)(called_by_lanes)

    return decorate


def _demand_own(name: str, options: Mapping[str, object]) -> None:
    if given := sorted(options.keys() & {"batch", "event_types"}):
        said = " and ".join(given)
        msg = f"projection {name!r}: {said} cannot be said: its classes say its types, and `batch` makes one of batches"
        raise ConfigError(msg)


def _ready(name: str, classes: Sequence[type[Any]], known: Callable[[Any], EventType]) -> list[EventType]:
    """Return what is registered of them. Raises ConfigError, naming the projection."""
    if not classes:
        msg = f"projection {name!r}: name the classes that the handler is for"
        raise ConfigError(msg)
    try:
        types = [known(cls) for cls in classes]
        for each in types:
            each.get_ready()
    except ConfigError as error:
        msg = f"projection {name!r}: {error}"
        raise ConfigError(msg) from error
    return types


def _compiled(name: str, handler: Callable[..., Any], decode: Callable[[Any], Any], *, blocking: bool) -> Compiled:
    """Return a handler of events that decodes them first; whether the other one wants them, too, is asked once."""
    if is_async(handler) != blocking and takes(handler, 2):
        return lambda events, tx: handler(decode(events), tx)
    if is_async(handler) != blocking and takes(handler, 3):
        return lambda events, tx: handler(decode(events), tx, events)
    kind = "plain function, as blocking=True wants," if blocking else "async function"
    msg = f"projection {name!r}: {called(handler)} is no {kind} that takes (object, tx) or (object, tx, event)"
    raise ConfigError(msg)


def _for(event: Event, table: Mapping[str, T]) -> T:
    """Return the entry of an event's type; a filter lets no other pass, but somebody may call a projection."""
    try:
        return table[event.event_type]
    except KeyError:
        msg = f"{event.event_type} version {event.event_version}: the projection has no handler for it"
        raise Undecodable(msg) from None
