"""What became of a batch, in the words of spans and metrics."""

from __future__ import annotations

from reactive_orch.errors import Deadlock, HandlerFailed, Superseded, Unavailable, kind_of


def outcome_of(failure: BaseException | None) -> str:
    """Return `reactive_orch.outcome` of a batch that ended with this failure; None: it was committed."""
    match failure:
        case None:
            return "committed"
        case Deadlock():
            return "deadlock"
        case Superseded():
            return "conflict"
        case Unavailable():
            return "unknown"
        case HandlerFailed():
            return "error"
        case _:
            return "cancelled"


def error_type_of(failure: BaseException) -> str:
    """Return `error.type` of a failed batch. A checkpoint that was not as expected has no cause, and a name of ours."""
    return "checkpoint_conflict" if isinstance(failure, Superseded) and not failure.__cause__ else kind_of(failure)
