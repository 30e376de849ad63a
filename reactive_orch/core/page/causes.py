"""Failing keys by what they have failed with, and where: many keys, one cause."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from reactive_orch.core.remedies import ours

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.model.keys import Cause

_FRAME = re.compile(r'^  File "(.+)", line (\d+)', re.MULTILINE)
_OWN = re.compile(r"/(?!.*/(site|dist)-packages/|.*/lib/python3)")
"""The path of a file that is not installed. Compiled modules, and what Python has frozen, have no path."""


def line_of(traceback: str) -> str | None:
    """Return the innermost line of the user's own code in a traceback, as `file:line`; None without any line.

    Own is what is not installed; where all is, it is the first line.
    """
    frames: list[tuple[str, str]] = _FRAME.findall(traceback)
    own = [frame for frame in frames if _OWN.match(frame[0])] or frames[:1]
    return ":".join(own[-1]) if own else None


def cause_as_json(replica_set: str, each: Cause) -> Mapping[str, Any]:
    """Return a cause as the page takes it, with the commands that help."""
    of = {"replica_set": replica_set, "projection": each.projection}
    return {
        "projection": each.projection,
        "version": 1,
        "log": each.log,
        "error": each.error_type,
        "message": " ".join(each.message.split()),
        "at_line": line_of(each.traceback),
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
