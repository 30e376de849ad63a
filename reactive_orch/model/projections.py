"""Projections: a handler and what it is fed. For users."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from reactive_orch.errors import ConfigError
from reactive_orch.model.events import Event
from reactive_orch.model.log import OWN_LOG, LogName, Subscription
from reactive_orch.model.names import check_name

EventHandler: TypeAlias = Callable[[Event, Any], Awaitable[None]]
BatchHandler: TypeAlias = Callable[[Sequence[Event], Any], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events a projection wants; None means all. Evaluated in SQL, recorded with the checkpoints."""

    aggregate_types: tuple[str, ...] | None = None
    bounded_contexts: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Projection:
    """A handler and what it is fed. Made by the `projection` decorator; calling it calls the handler."""

    name: str
    handler: EventHandler | BatchHandler
    batch: bool = False
    filter: Filter = Filter()
    concurrency: int = 1
    log: LogName = OWN_LOG

    @property
    def subscription(self) -> Subscription:
        """What is assigned of it, partition by partition."""
        return Subscription(self.name, self.log)

    def __call__(self, events: Any, tx: Any) -> Awaitable[None]:
        """Call the handler, so that a decorated function can be tested like a plain one."""
        return self.handler(events, tx)


def projection(
    name: str,
    *,
    batch: bool = False,
    aggregate_types: Sequence[str] | None = None,
    bounded_contexts: Sequence[str] | None = None,
    concurrency: int = 1,
) -> Callable[[Callable[..., Awaitable[None]]], Projection]:
    """Make an async function a projection.

    The function gets `(event, tx)`, or with `batch=True` `(events, tx)`, a sequence of events in the order of the log.
    `tx` is an asyncpg connection inside the transaction that also moves the checkpoint. `concurrency` is the number of
    lanes (tasks) its partitions are dealt to. A filter of None lets all events pass.

    Raises ConfigError for a name that is none, empty, longer than 63 bytes or not printable, and for a filter that is
    no list of names or an empty one; when it gets the function, for one that is not async or cannot be called with two
    arguments, and for a `concurrency` below 1.
    """
    if callable(name):
        msg = 'a projection needs a name: write @projection("name")'
        raise ConfigError(msg)
    check_name("projection", name)
    for what, wanted in (("aggregate_types", aggregate_types), ("bounded_contexts", bounded_contexts)):
        if isinstance(wanted, str) or (wanted is not None and not wanted):
            msg = f"projection {name!r}: {what} must be a list of names, not {wanted!r}"
            raise ConfigError(msg)

    def decorate(handler: Callable[..., Awaitable[None]]) -> Projection:
        if not _is_async(handler):
            called = getattr(handler, "__qualname__", None) or handler
            msg = f"projection {name!r}: the handler {called} is not async; write `async def`"
            raise ConfigError(msg)
        if not _takes_two(handler):
            msg = f"projection {name!r}: the handler takes {'(events, tx)' if batch else '(event, tx)'}"
            raise ConfigError(msg)
        if concurrency < 1:
            msg = f"projection {name!r}: concurrency must be at least 1, not {concurrency}"
            raise ConfigError(msg)
        only = Filter(_sorted(aggregate_types), _sorted(bounded_contexts))
        return Projection(name, handler, batch, only, concurrency)

    return decorate


def _is_async(handler: Callable[..., object]) -> bool:
    # An object with an async __call__ is as good as a function.
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def _takes_two(handler: Callable[..., object]) -> bool:
    try:
        inspect.signature(handler).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # nobody knows
        return True
    return True


def _sorted(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(sorted(set(names)))
