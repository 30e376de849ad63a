"""What handlers are, and what is put around them. For users."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from reactive_orch.model.events import Event

EventHandler: TypeAlias = Callable[[Event, Any], Awaitable[None]]
BatchHandler: TypeAlias = Callable[[Sequence[Event], Any], Awaitable[None]]
BlockingHandler: TypeAlias = Callable[[Any, Any], None]
"""A plain function: for an event or many of them, as the others."""

Handler: TypeAlias = Callable[[Any, Any], Awaitable[None]]
"""What a middleware is around: called with an event, or with a sequence of them, and the connection `tx`."""

Middleware: TypeAlias = Callable[[Handler], Handler]
"""Gets a handler and returns the one that is called in its place. Called once for each lane."""
