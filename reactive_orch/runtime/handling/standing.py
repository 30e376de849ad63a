"""Whether a runner takes part: not while its projection has another filter, nor while it leaves it to other workers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reactive_orch.model.reports import SteppedDown

if TYPE_CHECKING:
    from reactive_orch.runtime.handling.scope import Scope
    from reactive_orch.runtime.wakeup import Wakeup


@dataclass(slots=True)
class Standing:
    """That of one runner."""

    refused: bool = False
    """The projection is recorded with another filter now: this worker cannot go on with it."""
    given_up: bool = False
    """Refused while it ran: others have the filter that was accepted."""
    away_until: float | None = None
    """It has stepped down, and takes part again then, by the monotonic clock; None: it has not."""

    @property
    def away_s(self) -> float | None:
        """For how many seconds more it leaves its projection to others; None if it does not."""
        left_s = 0.0 if self.away_until is None else self.away_until - time.monotonic()
        return left_s if left_s > 0 else None

    @property
    def is_away(self) -> bool:
        """Whether it leaves its projection to others."""
        return self.away_s is not None

    @property
    def takes_part(self) -> bool:
        """Whether it goes on."""
        return not (self.refused or self.is_away)

    def give_up(self) -> None:
        """Take part no more: refused, now or while it ran, unless it has only stepped down."""
        refused = not self.is_away
        self.given_up, self.refused = refused and self.refused, refused

    def begin(self) -> None:
        """Take part."""
        self.refused, self.given_up, self.away_until = False, False, None


def step_down(scope: Scope, standing: Standing, wakeup: Wakeup) -> None:
    """Leave a projection to others, if there are any, and nobody waits for this worker's end; wake its runner."""
    if scope.others() and not scope.until_idle and not standing.is_away:
        pause_s = scope.fitness.step_down()
        standing.away_until = time.monotonic() + pause_s
        scope.watchers.emit(SteppedDown(scope.subject, pause_s))
        wakeup.set()
