"""Handlers that get objects of your classes instead of events: `EventTypes` says which class an event becomes.

It compiles to plain handlers: what it makes are ordinary projections, and the runtime knows nothing of it.

    codecs        a class and its library: pydantic's by pydantic, structs and dataclasses by msgspec
    event_type    one class: its type and version, and what becomes of older ones
    handlers      dispatch by class, and batches
    event_types   the registry
"""

from __future__ import annotations

from reactive_orch.typed.event_types import EventTypes
from reactive_orch.typed.handlers import TypedProjection

__all__ = ["EventTypes", "TypedProjection"]
