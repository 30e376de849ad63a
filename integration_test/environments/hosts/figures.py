"""How long events waited while the network failed, and the table of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from integration_test.harness.connections import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one failure, in seconds; None where nothing of the kind happened."""

    taken_over_s: float | None
    """From its beginning until others had handled an event in each partition of the worker it has hit."""
    waited_s: float
    """The longest wait of an event in one of those partitions, from its append on."""
    others_waited_s: float
    """The same in all other partitions."""
    back_s: float | None
    """From its end until that worker handled an event again."""
    generations: int
    """How many were written from its beginning on."""


async def measured(
    connection: Connection, worker: str, partitions: Collection[int], began: datetime, ended: datetime | None
) -> Figures:
    """Return the figures of what hit this worker, which had these partitions."""
    row = await connection.fetchrow(_MEASURED, worker, sorted(partitions), began, ended)
    assert row is not None
    return Figures(**row)


_MEASURED = """
WITH after AS (
    SELECT h.partition = ANY ($2::smallint[]) AS hit, h.partition, h.worker, h.at, h.at - e.created_at AS waited
    FROM public.handled h JOIN reactive_orch.events e ON e.global_position = h.position
    WHERE e.created_at > $3::timestamptz
), taken AS (
    SELECT min(a.at) AS at FROM after a WHERE a.hit AND a.worker <> $1 GROUP BY a.partition
)
SELECT extract(epoch FROM (SELECT max(t.at) FROM taken t) - $3)::float8 AS taken_over_s,
       extract(epoch FROM max(a.waited) FILTER (WHERE a.hit))::float8 AS waited_s,
       extract(epoch FROM max(a.waited) FILTER (WHERE NOT a.hit))::float8 AS others_waited_s,
       extract(epoch FROM min(a.at) FILTER (WHERE a.worker = $1 AND a.at > $4::timestamptz) - $4)::float8 AS back_s,
       (SELECT count(*) FROM reactive_orch.generations g WHERE g.created_at > $3) AS generations
FROM after a
"""

PROPERTY = "hosts"
"""Under which a test's report carries its figures."""


Note: TypeAlias = "Callable[[str, Figures], None]"


def note(properties: list[tuple[str, object]], what: str, figures: Figures) -> None:
    """Add what was measured to a test's properties."""
    properties.append((PROPERTY, {"what": what, **asdict(figures)}))


_HEAD = (
    "what happens to one of three workers",
    "all its partitions go on elsewhere after",
    "longest wait of an event there",
    "in the others' partitions",
    "it handles again after the end",
    "generations",
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return what was measured as Markdown."""
    lines = [_HEAD, ("---",) * len(_HEAD), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    figures = dict(row)
    return str(figures.pop("what")), *(_shown(value) for value in figures.values())


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f} s"
