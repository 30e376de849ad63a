"""What is told of an error: enough to act on, nothing of what the database said."""

from __future__ import annotations

from reactive_orch.errors import HandlerFailed, Unavailable, named


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_an_error_is_named_by_its_cause_or_in_our_own_words() -> None:
    assert (
        named(caused(Unavailable("refused by 10.0.0.1"), ConnectionRefusedError("10.0.0.1")))
        == "ConnectionRefusedError"
    )
    assert named(Unavailable("an old primary has answered")) == "an old primary has answered"
    assert named(Unavailable()) == "Unavailable"
    assert named(HandlerFailed("value 4711 is wrong")) == "HandlerFailed"
