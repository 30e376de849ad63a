"""Who runs a command, for the record."""

from __future__ import annotations

import getpass
import os
import re

import pytest

from reactive_orch.commands.command import operator


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """As in a container that runs under a user id of its own."""

    def nameless() -> str:
        raise error

    assert re.fullmatch(r"[^@]+@[^@]+", operator())
    monkeypatch.setattr(getpass, "getuser", nameless)
    assert operator().startswith(f"uid {os.getuid()}@")
