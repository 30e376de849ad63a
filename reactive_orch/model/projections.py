"""Projections: a handler and what it is fed. For users."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from reactive_orch.errors import ConfigError
from reactive_orch.model.log import OWN_LOG, LogName, Subscription
from reactive_orch.model.middleware import ALONE, Around, around, wrong_with
from reactive_orch.model.names import check_name

if TYPE_CHECKING:
    from datetime import datetime

    from reactive_orch.model.events import Event
    from reactive_orch.model.handlers import BatchHandler, BlockingHandler, EventHandler, Middleware
    from reactive_orch.model.hooks import Hooks

StartWord: TypeAlias = Literal["beginning", "now"]
Start: TypeAlias = "StartWord | datetime"
ResetHook: TypeAlias = Callable[[Any], Awaitable[None]]

OnError: TypeAlias = Literal["park", "halt"]
"""What becomes of an event after its last retry: its key waits for somebody, or its projection rests."""
RETRIES_MAX = 1000
TIMEOUT_MIN_S, TIMEOUT_MAX_S = 0.001, 86_400.0
"""Of a call of a handler: up to a day."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a projection wants; None means all. Evaluated in SQL, recorded with the checkpoints."""

    aggregate_types: tuple[str, ...] | None = None
    bounded_contexts: tuple[str, ...] | None = None
    event_types: tuple[str, ...] | None = None

    def passes(self, event: Event) -> bool:
        """Tell whether it lets an event pass, as SQL would: these columns are compared byte by byte there."""
        return (
            (self.aggregate_types is None or event.aggregate_type in self.aggregate_types)
            and (self.bounded_contexts is None or event.bounded_context in self.bounded_contexts)
            and (self.event_types is None or event.event_type in self.event_types)
        )

    @property
    def lets_all_pass(self) -> bool:
        """Whether it leaves nothing out."""
        return self == Filter()


@dataclass(frozen=True, slots=True)
class Projection:
    """A handler and what it is fed. Made by the `projection` decorator; calling it calls the handler."""

    name: str
    handler: EventHandler | BatchHandler | BlockingHandler
    batch: bool = False
    """The handler takes many events at once."""
    filter: Filter = Filter()
    concurrency: int = 1
    """The number of lanes (tasks) that its partitions are dealt to, on each worker."""
    retries: int | None = None
    """How often a failing event is tried again. None, as of the next two: what the process says (`Config`)."""
    timeout: float | None = None
    """How long one call of the handler may take, in seconds; one that takes longer has failed."""
    on_error: OnError | None = None
    """What becomes of an event after its last retry: its key waits for somebody and all others go on, or the
    projection rests on all workers."""
    reset: ResetHook | None = None
    """Empties what the handler has filled: called in the transaction of a rewind to the start, with its connection."""
    start: Start = "beginning"
    """Where it begins when it is first registered in its replica set: at the log's first event, behind what is there
    now, or at what was created at a time or later. That is found once, for all partitions, and kept."""
    replay: bool = True
    """Replayed events come to the handler, too; else they are passed over, as if handled: for effects elsewhere."""
    exclusive: bool = False
    """One worker has all its partitions, and one lane handles them; others take over when that one is gone."""
    log: LogName = OWN_LOG
    blocking: bool = False
    """The handler is a plain function: it is called in a thread, with a `BlockingConnection`."""
    group: str | None = None
    """With which others it handles new events in one transaction, where it may. None: alone."""
    around: Around = ALONE
    """Middleware around its handler and its batches, the outermost first; and the hooks that are told of its
    partitions."""

    @property
    def subscription(self) -> Subscription:
        """What is assigned of it, partition by partition."""
        return Subscription(self.name, self.log)

    def __call__(self, events: Any, tx: Any) -> Any:
        """Call the handler, so that a decorated function can be tested like a plain one.

        A blocking one is called here, in this thread. Raises TypeError if it gets a connection that is to be awaited.
        """
        if self.blocking and inspect.iscoroutinefunction(getattr(tx, "execute", None)):
            msg = f"the handler of {self.name!r} is blocking: it takes a BlockingConnection, none to be awaited"
            raise TypeError(msg)
        return self.handler(events, tx)


def projection(  # noqa: PLR0913 - a keyword for each thing that can be said about a projection
    name: str,
    *,
    batch: bool = False,
    aggregate_types: Sequence[str] | None = None,
    bounded_contexts: Sequence[str] | None = None,
    event_types: Sequence[str] | None = None,
    concurrency: int = 1,
    retries: int | None = None,
    timeout: float | None = None,
    on_error: OnError | None = None,
    reset: ResetHook | None = None,
    start: Start = "beginning",
    replay: bool = True,
    exclusive: bool = False,
    blocking: bool = False,
    group: str | None = None,
    middleware: Sequence[Middleware] = (),
    batch_middleware: Sequence[Middleware] = (),
    hooks: Sequence[Hooks] = (),
) -> Callable[[Callable[..., Awaitable[None] | None]], Projection]:
    """Make an async function a projection; or with `blocking=True` a plain one.

    The function gets `(event, tx)`, or with `batch=True` `(events, tx)`, a sequence of events in the order of the log.
    `tx` is an asyncpg connection inside the transaction that also moves the checkpoint. A filter of None lets all
    events pass. `middleware` stands around each call of the function, `batch_middleware` around all calls of a batch,
    the outermost first; `hooks` are told of its partitions. The others are described where `Projection` has them.

    Raises ConfigError for a name that is none, empty, longer than 63 bytes or not printable, and for a filter that is
    no list of names or an empty one; when it gets the function, for one that is not async, or is so and `blocking`, or
    cannot be called with two arguments, and for an option that cannot be, with all that is wrong.
    """
    if callable(name):
        msg = f'a projection needs a name: write @projection("{called(name)}")'
        raise ConfigError(msg)
    check_name("projection", name)
    only = Filter(
        _names(name, "aggregate_types", aggregate_types),
        _names(name, "bounded_contexts", bounded_contexts),
        _names(name, "event_types", event_types),
    )

    def decorate(handler: Callable[..., Any]) -> Projection:
        _check_handler(name, handler, batch=batch, blocking=blocking)
        made = Projection(
            *(name, handler, batch, only, concurrency, retries, timeout, on_error, reset, start, replay, exclusive),
            blocking=blocking,
            group=group,
            around=around(middleware, batch_middleware, hooks),
        )
        _check_options(made)
        return made

    return decorate


def _names(projection: str, option: str, names: Sequence[str] | None) -> tuple[str, ...] | None:
    listed = isinstance(names, Collection) and not isinstance(names, str)
    if names is not None and not (listed and names and all(map(_is_name, names))):
        msg = f"projection {projection!r}: {option} must be a list of names, not {names!r}"
        raise ConfigError(msg)
    return None if names is None else tuple(sorted(set(names)))


def _is_name(name: object) -> bool:
    """Tell whether an event can have a type or context of this name: PostgreSQL's text holds no character 0."""
    return isinstance(name, str) and "\x00" not in name


def _check_options(made: Projection) -> None:
    """Raise ConfigError with everything that is wrong with a projection's options."""
    complaints = [text for broken, text in _rules(made) if broken] + wrong_with(made.around)
    if complaints:
        msg = f"projection {made.name!r}: {'; '.join(complaints)}"
        raise ConfigError(msg)


def _rules(made: Projection) -> list[tuple[bool, str]]:
    """Return for each option whether it cannot be, and what is said then."""
    retries, timeout, on_error = made.retries, made.timeout, made.on_error
    return [
        (
            not (is_whole(made.concurrency) and made.concurrency >= 1),
            f"concurrency must be at least 1, not {made.concurrency!r}",
        ),
        (
            made.exclusive and is_whole(made.concurrency) and made.concurrency > 1,
            f"an exclusive projection has one lane: concurrency cannot be {made.concurrency}",
        ),
        (
            retries is not None and not (is_whole(retries) and 0 <= retries <= RETRIES_MAX),
            f"retries must be a whole number from 0 to {RETRIES_MAX}, not {retries!r}",
        ),
        (
            timeout is not None and not (is_number(timeout) and TIMEOUT_MIN_S <= timeout <= TIMEOUT_MAX_S),
            f"timeout must be {TIMEOUT_MIN_S:g} to {TIMEOUT_MAX_S:g} seconds, not {timeout!r}",
        ),
        (
            on_error is not None and on_error not in get_args(OnError),
            f"on_error must be {' or '.join(get_args(OnError))}, not {on_error!r}",
        ),
        (
            made.group is not None and not _is_name(made.group),
            f"group must be a name, not {made.group!r}",
        ),
        (
            made.reset is not None and not (is_async(made.reset) and takes(made.reset, 1)),
            f"reset must be an async function that takes (tx), not {made.reset!r}",
        ),
        (
            not _is_start(made.start),
            f"start must be 'beginning', 'now' or a datetime with its time zone, not {made.start!r}",
        ),
    ]


def is_whole(value: object) -> bool:
    """Tell whether a value is a whole number; True and False are none, although Python counts them so."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Tell whether a value is a number; True and False are none."""
    return is_whole(value) or isinstance(value, float)


def _is_start(start: object) -> bool:
    # Not by its type: the core, which knows projections, may know no clock.
    offset = getattr(start, "utcoffset", None)
    return start in get_args(StartWord) if isinstance(start, str) else offset is not None and offset() is not None


def _check_handler(projection: str, handler: Callable[..., Any], *, batch: bool, blocking: bool) -> None:
    if is_async(handler) == blocking:
        is_wrong = (
            "is async; leave out blocking=True"
            if blocking
            else "is not async; write `async def`, or blocking=True if it is to run in a thread"
        )
        msg = f"projection {projection!r}: the handler {called(handler)} {is_wrong}"
        raise ConfigError(msg)
    if inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler):
        msg = f"projection {projection!r}: the handler {called(handler)} has a `yield`: nothing of it would be run"
        raise ConfigError(msg)
    if not takes(handler, 2):
        given = f"{called(handler)}{inspect.signature(handler)}"
        msg = f"projection {projection!r}: the handler takes {'(events, tx)' if batch else '(event, tx)'}, not {given}"
        raise ConfigError(msg)


def called(handler: Callable[..., object]) -> object:
    """Return what a handler is called where somebody has written it."""
    return getattr(handler, "__qualname__", None) or handler


def is_async(handler: Callable[..., object]) -> bool:
    """Tell whether a call of it can be awaited."""
    # An object with an async __call__ is as good as a function.
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def takes(handler: Callable[..., object], arguments: int) -> bool:
    """Tell whether it can be called with so many arguments."""
    try:
        inspect.signature(handler).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # nobody knows
        return True
    return True
