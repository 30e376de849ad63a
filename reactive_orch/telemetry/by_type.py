"""An observer from a dictionary: for each type of report, what is done about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from reactive_orch.model.reports import Observer, Report

Handles: TypeAlias = Mapping[type[Any], Callable[[Any], object]]

_Report = TypeVar("_Report", bound="Report")


def on(kind: type[_Report], handle: Callable[[_Report], object]) -> tuple[type[Any], Callable[[Any], object]]:
    """Return a line of the dictionary. Type checkers see that the two belong together."""
    return kind, handle


def by_type(handles: Handles) -> Observer:
    """Return the observer that such a dictionary describes; reports of other types it ignores."""
    find = handles.get

    def observe(report: Report) -> None:
        handle = find(type(report))
        if handle is not None:
            handle(report)

    return observe
