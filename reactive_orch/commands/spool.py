"""Events that have been read and are still to be appended: a few in memory, more in a file that has no name."""

from __future__ import annotations

import pickle
import tempfile
from typing import TYPE_CHECKING

from reactive_orch.errors import ConfigError
from reactive_orch.postgres import appending
from reactive_orch.postgres.many import Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reactive_orch.model import NewEvent

PART_EVENTS = 1000
PART_BYTES = 1 << 21
"""A part ends with the event with which it has so many events, or so many bytes: in hand is never more than one."""


class Spool:
    """What `many.append` takes. Its file is gone when it is closed, or the process ends."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.count = 0
        self._file = tempfile.SpooledTemporaryFile(2 * PART_BYTES)  # noqa: SIM115 - kept until `close`
        self._streams: set[appending.Stream] = set()
        self._parts = self._kept = 0
        self._lines: list[int] = []
        self._events: list[NewEvent] = []
        self._bytes = 0

    def add(self, line: int, event: NewEvent) -> None:
        """Keep an event. Raises ConfigError when there is no room for it."""
        if len(self._streams) <= appending.TURNS_MAX:
            self._streams.add((event.bounded_context, event.aggregate_type, event.aggregate_id))
        self.count += 1
        self._lines.append(line)
        self._events.append(event)
        self._bytes += len(event.payload)
        if len(self._lines) >= PART_EVENTS or self._bytes >= PART_BYTES:
            self.end()

    def end(self) -> None:
        """End a part. Raises ConfigError when there is no room for it."""
        if not self._lines:
            return
        part = self._lines, appending.columns_of(self._events)
        self._lines, self._events, self._bytes = [], [], 0
        try:
            pickle.dump(part, self._file)
        except OSError as error:
            msg = (
                f"append: no room in {tempfile.gettempdir()} for the events until all are read: "
                f"{error.strerror}; TMPDIR names another directory; nothing was appended"
            )
            raise ConfigError(msg) from error
        self._parts, self._kept = self._parts + 1, self._file.tell()

    @property
    def streams(self) -> Sequence[appending.Stream]:
        """As `Many` says."""
        return sorted(self._streams)

    @property
    def few(self) -> bool:
        """As `Many` says."""
        return self._parts <= 1 and self._kept <= 2 * PART_BYTES

    def parts(self) -> Iterator[Part]:
        """As `Many` says."""
        self._file.seek(0)
        for _ in range(self._parts):
            yield Part(*pickle.load(self._file))  # noqa: S301 - what this process has written

    def close(self) -> None:
        """Forget them."""
        self._file.close()
