"""Cases of parametrized tests, and which of them `make test` leaves out for time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


def thorough(*values: object) -> ParameterSet:
    """Return a case that only `make test-all` tries, since others of its kind say nearly as much."""
    return pytest.param(*values, marks=pytest.mark.thorough)


EVENT_BY_EVENT_AND_IN_BATCHES = [
    pytest.param(False, id="event by event"),
    pytest.param(True, id="in batches", marks=pytest.mark.thorough),
]
"""Whether a projection takes whole batches; what its handler does is caught in one place for both."""
