"""What an error of the database says, in one place: a lost connection, a conflict, or something else.

Everything that goes on after an error goes on by its kind. Whoever asks about an error of a connection gives the
connection too: the same words mean less while it is still open.
"""

from __future__ import annotations

import contextlib
import enum
import re
import traceback
from typing import TYPE_CHECKING

import asyncpg

from reactive_orch.errors import (
    ConfigError,
    Deadlock,
    Exhausted,
    HandlerFailed,
    MissingRight,
    ReactiveOrchError,
    Standby,
    Superseded,
    Unavailable,
    lineage,
)
from reactive_orch.postgres.connection import is_closed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.postgres.connection import AnyConnection


class Kind(enum.Enum):
    """What to do about an error."""

    LOST = "lost"
    """The connection is of no use any more: forget, connect again."""
    RESOURCES = "resources"
    """The server lacks disk, memory or connections. Nothing is lost: wait, ever longer, and try again."""
    CONFLICT = "conflict"
    """The transaction met another one, or was cut short: do it again."""
    DEADLOCK = "deadlock"
    """The transaction and others waited for each other: do it again."""
    REFUSED = "refused"
    """The server takes no connection of ours for now."""
    STANDBY = "standby"
    """The server is none that may be written to."""
    MISUSE = "misuse"
    """The operator must change something: the address, the schema, a privilege."""
    STALE = "stale"
    """What the connection knows of types and plans does not hold any more: do it again on a new one."""
    STATEMENT = "statement"
    """The statement itself failed: whoever wrote it is to blame."""


_KINDS: tuple[tuple[Kind, tuple[type[BaseException], ...]], ...] = (
    # In this order: the first that fits, so the special ones stand before the classes they belong to.
    (Kind.DEADLOCK, (asyncpg.DeadlockDetectedError,)),
    (Kind.CONFLICT, (asyncpg.SerializationError, asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)),
    (Kind.STATEMENT, (asyncpg.DataCorruptedError, asyncpg.IndexCorruptedError)),
    (Kind.STALE, (asyncpg.InvalidSQLStatementNameError,)),  # a handler's DEALLOCATE ALL
    (Kind.STALE, (asyncpg.InvalidCachedStatementError, asyncpg.InternalServerError)),
    (Kind.STANDBY, (asyncpg.TargetServerAttributeNotMatched,)),
    (Kind.MISUSE, (asyncpg.ClientConfigurationError, asyncpg.UndefinedObjectError)),
    (Kind.MISUSE, (asyncpg.CantChangeRuntimeParamError, asyncpg.UndefinedTableError)),
    (Kind.MISUSE, (asyncpg.UndefinedFunctionError, asyncpg.UndefinedColumnError, asyncpg.InvalidSchemaNameError)),
    (Kind.RESOURCES, (asyncpg.InsufficientResourcesError, asyncpg.PostgresSystemError)),
    (Kind.LOST, (OSError,)),  # TimeoutError included: the answer may still come, so the connection is of no use
    (Kind.LOST, (asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError)),
    (Kind.LOST, (asyncpg.OperatorInterventionError, asyncpg.IdleInTransactionSessionTimeoutError)),
    (Kind.LOST, (asyncpg.ReadOnlySQLTransactionError,)),
    (Kind.REFUSED, (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)),
    (Kind.REFUSED, (asyncpg.ObjectNotInPrerequisiteStateError,)),  # the database accepts no connections for now
    (Kind.MISUSE, (asyncpg.InsufficientPrivilegeError,)),
)
_HANDLERS_OWN = (
    *(OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError),
    *(asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError),
    asyncpg.ReadOnlySQLTransactionError,
)
"""What a handler may meet elsewhere, or has brought about: it says nothing of our connection unless that is closed."""
_NOT_CODE = (OSError, BaseExceptionGroup, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""TimeoutError is an OSError: it may have cut off a statement."""
_NO_SCHEMA = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)


def classify(error: BaseException) -> Kind:
    """Return the kind of an error that one of our own statements, or a connection attempt, has met."""
    return next((kind for kind, types in _KINDS if isinstance(error, types)), Kind.STATEMENT)


def classify_foreign(error: BaseException, connection: AnyConnection) -> Kind:
    """Return the kind of an error that a handler has raised to whom this connection was lent, or that ended its batch.

    STATEMENT means that the error is the handler's own; else it is LOST, RESOURCES, DEADLOCK or CONFLICT. Of a group of
    errors it is the first of these that any of them is, and of an error of SQLAlchemy that of asyncpg's in it.
    """
    error = drivers_own(error)
    if is_overdue(error):
        return Kind.STATEMENT
    if is_closed(connection):
        return Kind.LOST
    if isinstance(error, BaseExceptionGroup):
        kinds = [classify_foreign(inner, connection) for inner in error.exceptions]
        return next((kind for kind in SETBACKS if kind in kinds), Kind.STATEMENT)
    if isinstance(error, _HANDLERS_OWN):
        return Kind.STATEMENT
    kind = classify(error)
    return kind if kind in SETBACKS else Kind.STATEMENT


def drivers_own(error: BaseException) -> BaseException:
    """Return the driver's error of which SQLAlchemy has made this one, or the error itself."""
    wrapped = getattr(error, "orig", None) if isinstance(error, Exception) else None
    own = wrapped.__cause__ if isinstance(wrapped, BaseException) else None
    return error if own is None else own


def is_overdue(error: BaseException | None) -> bool:
    """Tell whether an error, or what it came from, says that the server ended a transaction for lasting too long."""
    return any(isinstance(each, asyncpg.TransactionTimeoutError) for each in lineage(error))


def is_stale(error: BaseException) -> bool:
    """Tell whether an error of ours says that its connection is of no use any more, although it is open."""
    return error.__cause__ is not None and classify(error.__cause__) is Kind.STALE


def is_of_code_alone(error: BaseException) -> bool:
    """Tell whether a handler failed by its code alone: no time-out, and no error of a connection has had a part in it.

    Then what its connection knows of types and plans is not to blame.
    """
    return type(error) is HandlerFailed and error.__cause__ is not None and all(map(_is_code, lineage(error.__cause__)))


def _is_code(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, _NOT_CODE) and not _raised_in_asyncpg(error)


def _raised_in_asyncpg(error: BaseException) -> bool:
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(str(frame.f_globals.get("__name__")).startswith("asyncpg") for frame in frames)


def took_too_long(error: BaseException) -> bool:
    """Tell whether an error of ours says that a time-out ended a statement: the server's, or ours."""
    return isinstance(error.__cause__, (TimeoutError, asyncpg.QueryCanceledError))


def kept_waiting(error: BaseException) -> bool:
    """Tell whether the server has ended a statement as it had waited too long for a lock."""
    return isinstance(_asyncpgs(error), asyncpg.LockNotAvailableError)


def is_late(error: BaseException) -> bool:
    """Tell whether the server has ended a statement by one of its time-outs."""
    return isinstance(_asyncpgs(error), (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError))


def _asyncpgs(error: BaseException) -> BaseException:
    return error.__cause__ if isinstance(error, ReactiveOrchError) and error.__cause__ else error


SETBACKS: dict[Kind, type[ReactiveOrchError]] = {
    Kind.LOST: Unavailable,
    Kind.RESOURCES: Exhausted,
    Kind.DEADLOCK: Deadlock,
    Kind.CONFLICT: Superseded,
}
"""What a batch is ended with whose handler is not to blame, by the kind of the error it met."""


def of_a_value(error: Exception) -> Exception | None:
    """Return what a value that cannot be read may have brought about, None if it is something else.

    The server has the same word, an internal error, for some damaged values and for some stale plans.
    """
    if not isinstance(error, ReactiveOrchError):
        return error
    cause = error.__cause__
    return cause if isinstance(cause, asyncpg.InternalServerError) else None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn asyncpg's exceptions into ours, keeping them as the cause.

    Raises Unavailable (lost, refused), Exhausted, Standby, Superseded (do it again) or ConfigError (URL, schema), of
    which MissingRight is one. An error of the statement itself passes as it is.
    """
    try:
        yield
    except ReactiveOrchError:
        raise
    except Exception as error:
        if _is_torn(error):
            msg = "the connection was ended while a statement was being prepared"
            raise Unavailable(msg) from error
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            raise MissingRight(one_line(error)) from error
        ours = _OURS.get(classify(error))
        if ours is not None:
            raise ours(_words(error)) from error
        raise


@contextlib.contextmanager
def demanding_rights() -> Iterator[None]:
    """Raise MissingRight when a statement of ours lacks one. Its other errors pass as they are."""
    try:
        yield
    except asyncpg.InsufficientPrivilegeError as error:
        raise MissingRight(one_line(error)) from error


_OURS: dict[Kind, type[ReactiveOrchError]] = {
    Kind.LOST: Unavailable,
    Kind.RESOURCES: Exhausted,
    Kind.DEADLOCK: Deadlock,
    Kind.CONFLICT: Superseded,
    Kind.STALE: Superseded,
    Kind.REFUSED: Unavailable,
    Kind.STANDBY: Standby,
    Kind.MISUSE: ConfigError,
}


def _is_torn(error: BaseException) -> bool:
    """Tell whether asyncpg has gone on with a connection that was ended meanwhile, and has found nothing there."""
    *_, (frame, _line) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, AttributeError) and str(frame.f_globals.get("__name__")).startswith("asyncpg")


def _is_surprised(error: BaseException) -> bool:
    """Tell whether a connection was lost while asyncpg was talking on it: it says of that what it knows of itself."""
    busy = (
        isinstance(error, asyncpg.InterfaceError)
        and re.search("another operation|connection is closed", str(error)) is not None
    )
    return busy or isinstance(error, asyncpg.InternalClientError)


def _words(error: Exception) -> str:
    before = error.__context__
    if isinstance(error, asyncpg.InterfaceError) and isinstance(before, Exception) and classify(before) is Kind.LOST:
        return _words(before)  # asyncpg cannot end the transaction of a connection that this has ended
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "the server is a standby: give the address of the primary, or all hosts in one URL"
    if _is_surprised(error):
        return "the connection was lost"
    if isinstance(error, _NO_SCHEMA):
        return (
            "the schema reactive_orch is missing or older than this program: "
            "run `python -m reactive_orch migrate` with the same address"
        )
    if classify(error) is Kind.MISUSE:
        return f"the database URL cannot be used: {one_line(error)}"
    return one_line(error)


def one_line(error: BaseException) -> str:
    """Return an error's text in one line, its type when it has none."""
    return " ".join(str(error).split()) or type(error).__name__
