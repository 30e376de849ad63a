"""The traceback of an event's first failure, into the log of this process and nowhere else.

A traceback quotes values. So this is no default observer: whoever starts a process asks for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from reactive_orch.errors import traceback_of
from reactive_orch.model.reports import AttemptFailed, EventFailed, KeyParked
from reactive_orch.telemetry.by_type import by_type

if TYPE_CHECKING:
    from typing import TypeAlias

    _Failed: TypeAlias = AttemptFailed | KeyParked | EventFailed

_logger = logging.getLogger("reactive_orch")


def _say(report: _Failed) -> None:
    if report.first:
        trace = traceback_of(report.error.__cause__ or report.error)
        extra = {"event": "traceback", **report.subject._asdict(), "traceback": trace}
        words = "projection %s: how it failed at position %d"
        _logger.warning(words, report.subject.projection, report.position, extra=extra)


TRACEBACKS = by_type({AttemptFailed: _say, KeyParked: _say, EventFailed: _say})
