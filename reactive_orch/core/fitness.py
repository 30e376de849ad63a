"""Whether a worker is fit to run a projection: it is not if events that fail here, and nothing else, succeed elsewhere.

A module that is missing on one machine, a full disk, a broken network: that is no fault of the events. So before an
event is parked, or its projection suspended, another worker tries it. Who is contradicted again and again, with no
success of its own between, leaves the projection to the others for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reactive_orch.incarnation import Incarnation
    from reactive_orch.model.keys import Asked

CONTRADICTIONS_MAX = 3
"""So many keys in a row that failed here and succeeded elsewhere are no accident; one may be, if its cause has gone."""

ANSWER_WITHIN_S = 30.0
"""If nobody has tried an event for so long after it was asked, the owner of its partition tries it a last time."""

FIRST_TRIAL_WITHIN_S = 10.0
"""A trial that succeeds so soon elsewhere, after ten keys have failed alike here, says that it is this worker; a later
one may succeed since the cause has gone."""

PAUSES_S = (30.0, 60.0, 120.0, 240.0, 480.0, 600.0)
"""For which it steps down, the first time and each time that nothing has succeeded here since."""


@dataclass(slots=True)
class Fitness:
    """What one worker knows of its own attempts of one projection since its last success."""

    asked: dict[int, Asked] = field(default_factory=dict)
    """By their ids, the keys that have failed here and are tried elsewhere."""
    contradictions: int = 0
    suspended_at: float | None = None
    """When this worker suspended the projection, and how that has ended is not known; by the monotonic clock."""
    times: int = 0
    """How often it has stepped down."""

    def succeeded(self) -> None:
        """Begin anew: an event was handled here."""
        self.asked.clear()
        self.contradictions, self.suspended_at, self.times = 0, None, 0

    @property
    def waits(self) -> bool:
        """Whether others are to say something."""
        return bool(self.asked) or self.suspended_at is not None

    def begin(self, incarnation: Incarnation) -> None:
        """Forget the keys that have failed in another incarnation."""
        self.asked = {key: each for key, each in self.asked.items() if each.incarnation == incarnation}

    def answered(self, key: int, *, handled: bool) -> None:
        """Note whether a key that has failed here was handled elsewhere."""
        self.asked.pop(key, None)
        self.contradictions += handled

    def resumed(self, now: float, *, elsewhere: bool) -> None:
        """Note that the projection runs again: since an event was handled `elsewhere`, or for another reason."""
        soon = self.suspended_at is not None and now - self.suspended_at < FIRST_TRIAL_WITHIN_S
        self.suspended_at = None
        if elsewhere and soon:
            self.contradictions = CONTRADICTIONS_MAX

    @property
    def unfit(self) -> bool:
        """Whether it is to step down."""
        return self.contradictions >= CONTRADICTIONS_MAX

    def step_down(self) -> float:
        """Return for how many seconds it leaves the projection to others; then it begins anew."""
        pause_s = PAUSES_S[min(self.times, len(PAUSES_S) - 1)]
        self.asked.clear()
        self.contradictions, self.suspended_at, self.times = 0, None, self.times + 1
        return pause_s
