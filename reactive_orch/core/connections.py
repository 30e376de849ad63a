"""How many connections a process keeps while it has nothing to do."""

from __future__ import annotations

IDLE_MOST = 3
"""As many as a process has outside its pools when it watches another one: its members', its log's, its watch."""


def kept_warm(own: int) -> int:
    """Return how many connections for batches stay open beside those outside the pools, however long nothing comes."""
    return max(IDLE_MOST - own, 0)
