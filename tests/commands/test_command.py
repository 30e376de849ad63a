"""Who runs a command, for the record; and what a terminal gets of events."""

from __future__ import annotations

import getpass
import os
import re

import pytest

from reactive_orch.commands.command import operator
from reactive_orch.model.names import printable


@pytest.mark.parametrize("error", [KeyError, OSError])
def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    """As in a container that runs under a user id of its own."""

    def nameless() -> str:
        raise error

    assert re.fullmatch(r"[^@]+@[^@]+", operator())
    monkeypatch.setattr(getpass, "getuser", nameless)
    assert operator().startswith(f"uid {os.getuid()}@")


def test_what_would_steer_a_terminal_is_escaped() -> None:
    assert printable("a\x1b[31mb\x07\n\tcä\u202e") == "a\\x1b[31mb\\x07\n\tcä\\u202e"
