"""Who waits for the log to grow, and who has asked for a look at it.

Readers that have read all there is are told which events have come; those that have none of them sleep on.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from reactive_orch.runtime.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from reactive_orch.model import Partition
    from reactive_orch.runtime.reading.fresh import Fresh, Reader


class Waiters:
    """The wake-ups to set at the next advance, and those to set at the next look."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._for_more: set[Wakeup] = set()
        self._readers: set[Reader] = set()
        self._for_a_look: set[Wakeup] = set()
        self._demand = Wakeup()

    def call(self, wakeup: Wakeup) -> None:
        """Set this wake-up once, at the next advance."""
        self._for_more.add(wakeup)
        self._demand.set()

    @contextlib.contextmanager
    def told(self, reader: Reader) -> Iterator[None]:
        """Tell this reader of each advance during the block, until it does not wait on."""
        self._readers.add(reader)
        self._demand.set()
        try:
            yield
        finally:
            self._readers.discard(reader)

    @property
    def read_partitions(self) -> frozenset[Partition]:
        """What the readers read."""
        return frozenset().union(*(reader.partitions for reader in self._readers))

    def ask(self, wakeup: Wakeup) -> None:
        """Set this wake-up once, after the next look."""
        self._for_a_look.add(wakeup)
        self._demand.set()

    def hurry(self) -> None:
        """Look, whether somebody waits or not."""
        self._demand.set()

    @property
    def want_more(self) -> bool:
        """Whether somebody waits for the next advance."""
        return bool(self._for_more or self._readers)

    async def wanted(self, timeout_s: float) -> bool:
        """Wait until somebody wants more, or a look; False when the time ran out first."""
        return self.want_more or await self._demand.wait(timeout_s)

    def advanced(self, fresh: Fresh | None = None) -> None:
        """Wake those that wait for more: of the readers those that do not wait on."""
        waiting, self._for_more = self._for_more, set()
        _set_all(waiting)
        self._readers = {reader for reader in self._readers if reader.hear(fresh)}

    def looked(self) -> None:
        """Wake those that asked for a look."""
        asked, self._for_a_look = self._for_a_look, set()
        _set_all(asked)


def _set_all(wakeups: Iterable[Wakeup]) -> None:
    for wakeup in wakeups:
        wakeup.set()
