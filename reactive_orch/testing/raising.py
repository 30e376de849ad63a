"""A handler's failure, as its user's own exception again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.errors import HandlerFailed, ProjectionFailed, own_traceback

if TYPE_CHECKING:
    from collections.abc import Iterator


def users_own(failure: HandlerFailed | ProjectionFailed) -> BaseException:
    """Return what a handler has raised, with the traceback from its first line on; what we say of it is a note.

    The failure itself if no handler has raised anything, as when it has ended its transaction.
    """
    error = failure.__cause__
    if error is None:
        return failure.with_traceback(None)
    error.add_note(str(failure))
    return error.with_traceback(own_traceback(error))


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, of its groups too."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error
