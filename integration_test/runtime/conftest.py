"""For tests of workers: bugs that are planted in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration_test.chaos import planted

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Plants a bug in this process, until the test's end."""

    def put(owner: object, name: str, value: object) -> None:
        monkeypatch.setattr(owner, name, value)

    monkeypatch.setattr(planted, "_put", put)
    return planted.plant
