"""A rebalance in the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from reactive_orch.commands.waterfall import WIDTH, waterfall
from reactive_orch.model.membership import AdoptionRow, GenerationRow

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def at(milliseconds: float) -> datetime:
    return NOON + timedelta(milliseconds=milliseconds)


@dataclass
class Row:
    text: str

    @property
    def bar(self) -> tuple[int, int]:
        drawn = self.text[24 : 24 + WIDTH]
        return drawn.index("█"), drawn.rindex("█") + 1


GENERATION = GenerationRow(
    number=7,
    reason="death",
    subjects=[3],
    members=[1, 2, 4],
    moved=21,
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    initiator=2,
    wake_source="watch",
    noticed_at=at(0),
    created_at=at(10),
    completed_at=at(40),
)
ADOPTIONS = [
    AdoptionRow(2, "own", at(12), None, at(30), at(32), 0, 11, 32),
    AdoptionRow(1, "notify", at(15), at(20), at(38), at(40), 1, 10, 32),
]


def test_who_did_what_when() -> None:
    lines = list(waterfall("orders", GENERATION, ADOPTIONS))
    assert lines[:4] == [
        "generation 7 of orders: death of 3, at 2026-01-02 12:00:00Z",
        "21 partitions moved, 64 kept; settled in 30.0 ms, 40.0 ms after the notice",
        "trace 0af7651916cd43dd8448eb211c80319c",
        "",
    ]
    rows = [Row(line) for line in lines[5:-1]]
    assert [(row.text[:11].strip(), row.text[12:23].strip()) for row in rows] == [
        ("worker 2", "decide"),
        ("", "notice"),
        ("", "load"),
        ("", "acknowledge"),
        ("worker 1", "notice"),
        ("", "finish"),
        ("", "load"),
        ("", "acknowledge"),
    ]
    assert [row.bar for row in rows] == [(0, 10), (10, 12), (12, 30), (30, 32), (10, 15), (15, 20), (15, 38), (38, 40)]
    assert rows[0].text.endswith("10.0 ms  told by watch")
    assert rows[5].text.endswith("5.0 ms  gave 1")
    assert lines[-1] == "worker 4    has not acknowledged"


def test_a_generation_that_is_not_settled() -> None:
    row = GENERATION._replace(completed_at=None, traceparent=None, members=[2], created_at=at(0))
    lines = list(waterfall("orders", row, []))
    assert lines[1] == "21 partitions moved; not settled yet"
    overtaken = list(waterfall("orders", row, [], overtaken=True))
    assert overtaken[1] == "21 partitions moved; overtaken by the next"
    assert "trace" not in lines[2]
    assert lines[-1] == "worker 2    has not acknowledged"


def test_a_malformed_traceparent_is_left_out() -> None:
    shown = [*waterfall("orders", GENERATION._replace(traceparent="nonsense"), [])]
    assert not [line for line in shown if line.startswith("trace")]


def test_a_change_of_what_workers_run_is_about_nobody() -> None:
    line = next(waterfall("orders", GENERATION._replace(reason="capability", subjects=[]), ADOPTIONS))
    assert line == "generation 7 of orders: capability, at 2026-01-02 12:00:00Z"
