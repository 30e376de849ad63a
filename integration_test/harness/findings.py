"""Tests of tests: a planted bug must be found, by what the test asserts."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.waiting import TimedOut

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def found() -> Iterator[None]:
    """Expect that the block's assertion fails, and not only because something did not happen in time."""
    with pytest.raises(AssertionError) as caught:
        yield
    assert not isinstance(caught.value, TimedOut), f"that is no finding: {caught.value}"
