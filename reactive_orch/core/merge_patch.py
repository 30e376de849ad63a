"""JSON merge patches (RFC 7396): what has changed from one object to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the patch that makes one of the other; empty if nothing has changed.

    A member that is null and one that is missing mean the same: a patch cannot tell them apart.
    """
    changes: dict[str, Any] = {key: None for key, value in before.items() if value is not None and key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            if within := merge_patch(old, value):
                changes[key] = within
        elif old != value:
            changes[key] = value
    return changes
