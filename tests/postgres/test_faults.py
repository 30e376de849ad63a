"""What an error says of the connection on which a handler met it."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from asyncpg import utils

from reactive_orch.errors import HandlerFailed, TimedOut, Unavailable
from reactive_orch.postgres.faults import is_of_code_alone, translated


def _failed(cause: BaseException | None, kind: type[HandlerFailed] = HandlerFailed) -> HandlerFailed:
    error = kind("it failed", 0)
    error.__cause__ = cause
    return error


def _after(before: BaseException) -> ValueError:
    error = ValueError()
    error.__context__ = before
    return error


def _raised_in_asyncpg() -> Exception:
    try:
        utils._quote_ident(None)  # type: ignore[arg-type]  # noqa: SLF001
    except AttributeError as error:
        return error
    raise AssertionError


def test_code_alone_is_to_blame_for_what_it_raises() -> None:
    assert is_of_code_alone(_failed(ValueError()))
    assert is_of_code_alone(_failed(_after(LookupError())))


@pytest.mark.parametrize(
    "error",
    [
        _failed(None),
        _failed(ValueError(), TimedOut),
        *map(_failed, (asyncpg.InvalidCachedStatementError(), asyncpg.InterfaceError(""), TimeoutError())),
        *map(_failed, (ExceptionGroup("", [ValueError()]), asyncio.CancelledError(), _raised_in_asyncpg())),
        *(_failed(_after(before)) for before in (asyncpg.DataError(), TimeoutError(), asyncio.CancelledError())),
    ],
)
def test_it_is_not_where_a_connection_may_have_had_a_part_in_it(error: HandlerFailed) -> None:
    assert not is_of_code_alone(error)


@pytest.mark.parametrize(
    "raised",
    [
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        asyncpg.InterfaceError("connection is closed"),
    ],
)
def test_what_asyncpg_knows_of_itself_is_told_to_nobody(raised: Exception) -> None:
    with pytest.raises(Unavailable, match=r"^the connection was lost$"), translated():
        raise raised


def test_what_asyncpg_does_not_find_on_a_connection_that_was_ended_meanwhile_is_a_loss() -> None:
    """It says so by the AttributeError of what is None by then; one of other code is a mistake in that."""
    code = compile("def use():\n    None.get_settings()", "asyncpg/connection.py", "exec")
    for name, raised in (("asyncpg.connection", Unavailable), ("reactive_orch.postgres.log", AttributeError)):
        made: dict[str, Any] = {"__name__": name}
        exec(code, made)  # noqa: S102 - as if it stood there
        with pytest.raises(raised), translated():
            made["use"]()
