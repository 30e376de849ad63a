"""Waiting between attempts: exponential, with jitter, bounded."""

from __future__ import annotations

import random

from reactive_orch.errors import Superseded, Unavailable


class Backoff:
    """Pauses that double from `first_s` to `most_s`, each between half and the whole of it.

    The jitter keeps many workers that lost the same server from coming back in step.
    """

    def __init__(self, first_s: float, most_s: float) -> None:
        """Start at the first pause."""
        self._first_s, self._most_s = first_s, most_s
        self._next_s = first_s

    def reset(self) -> None:
        """Begin again at the first pause: the last attempt succeeded."""
        self._next_s = self._first_s

    def next_s(self) -> float:
        """Return the next pause in seconds."""
        pause_s, self._next_s = self._next_s, min(self._next_s * 2, self._most_s)
        return pause_s * random.uniform(0.5, 1.0)


class Pauses:
    """Between attempts that fail for one of two reasons: others were quicker, or the database is away.

    Whoever was quicker is soon done; a server takes seconds to come back.
    """

    def __init__(self, contended_most_s: float) -> None:
        """Start at the first pauses."""
        self._contended = Backoff(0.001, contended_most_s)
        self._away = Backoff(0.05, 5.0)

    def reset(self) -> None:
        """Begin again at the first pauses: the last attempt succeeded."""
        self._contended.reset()
        self._away.reset()

    def after_s(self, error: Superseded | Unavailable) -> float:
        """Return the next pause after this error, in seconds."""
        return (self._contended if isinstance(error, Superseded) else self._away).next_s()
