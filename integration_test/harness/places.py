"""Where the data of servers that are thrown away lie: in memory, where there is more room than for a user's tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.embedded import throwaway

if TYPE_CHECKING:
    from pathlib import Path

_ROOM = 8 * 2**30


def new_directory(prefix: str) -> Path:
    """Make a directory that others may pass: in memory, or in /tmp where there are less than 8 GB of it."""
    return throwaway.new_directory(prefix, _ROOM)
