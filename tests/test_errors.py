"""What is told of an error: enough to act on, nothing of what the database said."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch import errors
from reactive_orch.errors import (
    HandlerFailed,
    Superseded,
    Unavailable,
    described,
    kind_of,
    lineage,
    named,
    place_of,
    traceback_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


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
    assert named(Superseded("somebody else holds their rows")) == "somebody else holds their rows"
    assert named(HandlerFailed("value 4711 is wrong")) == "HandlerFailed"


def test_an_error_of_sqlalchemy_has_the_sqlstate_of_the_drivers_in_it() -> None:
    wrapped = Exception("(asyncpg…) of 4711")
    vars(wrapped)["orig"] = orig = Exception()
    vars(orig)["sqlstate"] = "23505"
    assert named(wrapped) == "Exception (23505)"
    assert kind_of(wrapped) == "23505"


def users_own(text: str) -> int:
    return len(json.loads(text))


def raised(call: Callable[[], object]) -> Exception:
    try:
        call()
    except Exception as error:  # noqa: BLE001 - whichever it is, it is what is looked at
        return error
    raise AssertionError


def line_of(function: Callable[..., object], offset: int) -> str:
    return f"{__file__}:{function.__code__.co_firstlineno + offset}"


def test_the_place_of_an_error_is_the_innermost_line_of_a_users_own_code() -> None:
    error = raised(lambda: users_own("{"))
    here = line_of(users_own, 1)
    assert place_of(error) == here, "not the line of json that raised"
    assert place_of(caused(HandlerFailed("why"), error)) == here
    assert place_of(caused(HandlerFailed("why"), ExceptionGroup("two", [error, ValueError()]))) == here
    assert place_of(HandlerFailed("took too long")) is None


def test_where_all_is_installed_the_place_is_the_first_line_that_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "_installed", lambda: (f"{Path(__file__).parents[1]}/", sysconfig.get_path("stdlib")))
    assert place_of(raised(lambda: users_own("{"))) == line_of(raised, 2)


def test_what_only_begins_like_this_package_is_a_users_own() -> None:
    file = f"{Path(errors.__file__).parent}_shop/projections.py"
    made: dict[str, Callable[[], object]] = {}
    exec(compile("def fail():\n    raise KeyError", file, "exec"), made)  # noqa: S102 - as if it stood there
    assert place_of(raised(made["fail"])) == f"{file}:2"


def test_of_an_extension_module_the_place_is_where_its_caller_stands() -> None:
    """Its frames name a source that was never installed: asyncpg/protocol/protocol.pyx."""
    installed = f"{sysconfig.get_path('purelib')}/asyncpg/protocol/protocol.so"
    made: dict[str, Callable[[], object]] = {"__file__": installed}  # type: ignore[dict-item]
    exec(compile("def fail():\n    raise KeyError", "asyncpg/protocol/protocol.pyx", "exec"), made)  # noqa: S102
    assert place_of(raised(lambda: raise_by(made["fail"]))) == line_of(raise_by, 1)


def raise_by(fail: Callable[[], object]) -> None:
    fail()


def test_the_place_of_a_group_is_that_of_its_first_error_that_has_one_else_its_own() -> None:
    error = raised(lambda: users_own("{"))
    assert place_of(ExceptionGroup("two", [ValueError("never raised"), error])) == line_of(users_own, 1)
    assert place_of(raised(raise_a_group)) == line_of(raise_a_group, 2)


def raise_a_group() -> None:
    msg = "one"
    raise ExceptionGroup(msg, [ValueError("never raised")])


class Odd(Exception):
    """An error whose own code fails at whatever it is asked."""

    def __str__(self) -> str:
        raise SystemExit(3)

    @property
    def sqlstate(self) -> str:
        raise LookupError


def test_an_error_that_cannot_tell_its_text_is_told_all_the_same() -> None:
    assert described(Odd()) == "Odd: <exception str() failed>"
    assert (kind_of(Odd()), named(Odd())) == ("Odd", "Odd")


def test_an_error_that_is_its_own_cause_is_followed_once() -> None:
    first, second = KeyError(), ValueError()
    first.__cause__, second.__cause__ = second, first
    assert list(lineage(first)) == [first, second]
    assert place_of(caused(first, first)) is None
    assert kind_of(caused(first, first)) == "KeyError"
    ours = HandlerFailed("why")
    assert named(caused(ours, ours)) == "HandlerFailed"


def test_of_a_long_traceback_the_end_is_kept() -> None:
    trace = traceback_of(KeyError("x" * 1_000_000 + "the end"))
    assert len(trace) == 64_000
    assert trace.rstrip().endswith("the end'")


def test_the_place_of_an_error_is_no_code_that_a_library_has_made() -> None:
    made: dict[str, Callable[[], object]] = {}
    exec("def fail(): raise KeyError", made)  # noqa: S102 - as SQLAlchemy and dataclasses make some of theirs
    assert place_of(raised(lambda: raise_by(made["fail"]))) == line_of(raise_by, 1)
