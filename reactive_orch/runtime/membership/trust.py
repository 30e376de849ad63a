"""Whether what this process sees of others proves anything: it may have been cut off together with everybody."""

from __future__ import annotations

import time

DISTRUST_S = 3.0
"""After a reconnect, others' free locks and old heartbeats prove nothing for this long and, on top of it, for as long
as this process was away: all may have been cut off with it, and the longer that lasted, the longer are their pauses."""

RETURN_MOST_S = 10.0
"""Nobody needs longer to come back than the longest pause between attempts and one that gets no answer, 5 s each."""

LATE_BEATS = 2
"""When an answer to a heartbeat is late by more than so many heartbeats, others may have been held up as well."""


class Trust:
    """When this process heard from the database, and since when it may judge others by their silence."""

    def __init__(self, heartbeat_s: float) -> None:
        """Trust from the first connection on."""
        self._heartbeat_s = heartbeat_s
        self._heard_at = time.monotonic()
        self._trusts_from = 0.0
        self._watches_since: float | None = None

    @property
    def given(self) -> bool:
        """Whether the signs of others prove anything."""
        return time.monotonic() >= self._trusts_from

    @property
    def watched_s(self) -> float:
        """For how long this process has been there to hear others, in seconds.

        Another's heartbeat that was old before this process came may be so because nobody could beat, in an outage that
        has just ended. Waiting costs little: a free lock tells of a death at once.
        """
        return 0.0 if self._watches_since is None else time.monotonic() - self._watches_since

    def connected(self) -> None:
        """Note that notifications arrive: from the first time on this process could hear others."""
        self._watches_since = self._watches_since or time.monotonic()

    def answered(self) -> None:
        """Note that a heartbeat was answered. If that was late, others may have been held up as well."""
        away_s = self._heard()
        if away_s > LATE_BEATS * self._heartbeat_s:
            self._distrust(away_s)

    def reconnected(self) -> None:
        """Note that a lost connection is back."""
        self._distrust(DISTRUST_S + self._heard())

    def _heard(self) -> float:
        """Note that the database answers; return by how many seconds that is late, at most RETURN_MOST_S."""
        now = time.monotonic()
        away_s, self._heard_at = now - self._heard_at - self._heartbeat_s, now
        return min(max(away_s, 0.0), RETURN_MOST_S)

    def _distrust(self, seconds: float) -> None:
        self._trusts_from = max(self._trusts_from, time.monotonic() + seconds)
