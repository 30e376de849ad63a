"""The table of what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from integration_test.environments.cluster.scene import HOSTS, NEW, PROXY

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from integration_test.environments.cluster.scene import Figures

PROPERTY = "failover"
"""Under which a test's report carries its row."""

_HEAD = (
    "replication",
    "what happens to the primary",
    "nobody can append",
    "all handle again, by the hosts",
    "by HAProxy",
    "started meanwhile, by the hosts",
    "by HAProxy",
    "acknowledged and gone",
)


def note(request: pytest.FixtureRequest, what: Sequence[str], figures: Figures, gone: int) -> None:
    """Let a test's report carry what it has measured."""
    times = (
        figures.silence_s,
        *(figures.slowest_s(way) for way in (HOSTS, PROXY)),
        *(figures.back_s[f"{way}-{NEW}"] for way in (HOSTS, PROXY)),
    )
    row = (*what, *(f"{seconds:.1f} s" for seconds in times), str(gone))
    request.node.user_properties.append((PROPERTY, row))


def table(rows: Sequence[Any]) -> str:
    """Return what was measured as Markdown."""
    lines = [_HEAD, ("---",) * len(_HEAD), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
