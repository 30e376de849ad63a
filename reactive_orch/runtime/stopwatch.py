"""For how long something has gone on, in all."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stopwatch:
    """Counts while a block runs."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._counted_s = 0.0
        self._since: float | None = None

    @property
    def seconds(self) -> float:
        """What has been counted, up to now."""
        return self._counted_s + (0.0 if self._since is None else time.monotonic() - self._since)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count while the block runs. Blocks do not overlap."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._counted_s, self._since = self.seconds, None
