"""What became of a batch, in the words of spans and metrics."""

from __future__ import annotations

from reactive_orch.errors import HandlerFailed, Superseded, Unavailable, kind_of


def outcome_of(failure: BaseException | None) -> str:
    """Return what `reactive_orch.outcome` says."""
    match failure:
        case None:
            return "committed"
        case Superseded():
            return "conflict"
        case Unavailable():
            return "unknown"
        case HandlerFailed():
            return "error"
        case _:
            return "cancelled"


def error_type_of(failure: BaseException) -> str:
    """Return what `error.type` says."""
    return "checkpoint_conflict" if isinstance(failure, Superseded) and not failure.__cause__ else kind_of(failure)
