"""How many connections a process needs, and whether there are enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactive_orch.model.overview import ConnectionsSeen

IDLE_MOST = 3
"""As many as a process has outside its pools when it watches another one: its members', its log's, its watch."""


def needed(most: int) -> str:
    """Return the words for what a worker needs that may have so many."""
    return f"a worker holds up to {most} (--connections), {IDLE_MOST} while it idles"


def kept_warm(own: int) -> int:
    """Return how many connections for batches stay open beside those outside the pools, however long nothing comes."""
    return max(IDLE_MOST - own, 0)


SHORT_BELOW = 0.1
"""With a lesser share left a limit is nearly reached: one more worker, or a burst, reaches it."""


def is_short(seen: ConnectionsSeen) -> bool:
    """Tell whether a limit of connections is reached, or nearly so."""
    return seen.most - seen.used < SHORT_BELOW * seen.most or seen.used >= seen.most


def in_use(seen: ConnectionsSeen) -> str:
    """Return the words for how many are in use."""
    number = f"{seen.used} of the {seen.most} connections"
    if seen.of == "server":
        apart = f", besides {seen.reserved} that are reserved" if seen.reserved else ""
        return f"{number} that the server takes are in use{apart}"
    return f"{seen.of} {seen.name} has {number} that its CONNECTION LIMIT allows"
