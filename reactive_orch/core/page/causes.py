"""Failing keys by what they have failed with, and where: many keys, one cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reactive_orch.core.remedies import ours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model.keys import Cause


def cause_as_json(replica_set: str, each: Cause) -> Mapping[str, Any]:
    """Return a cause as the page takes it, with the commands that help."""
    of = {"replica_set": replica_set, "projection": each.projection}
    return {
        "projection": each.projection,
        "version": 1,
        "log": each.log,
        "error": each.error_type,
        "message": " ".join(each.message.split()),
        "at_line": each.line,
        "first_at": each.first_at.isoformat(),
        "last_at": each.last_at.isoformat(),
        "attempts": each.attempts,
        "keys": each.keys,
        "parked_keys": each.parked_keys,
        "events": each.events,
        "partitions": list(each.partitions),
        "commands": {
            "show": ours("dead-letters show", **of),
            "retry": f"{ours('dead-letters retry', **of)} --all",
            "discard": f"{ours('dead-letters discard', **of)} --all",
        },
    }
