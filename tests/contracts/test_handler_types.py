"""Type checkers see what a handler is for: mypy and pyright refuse what is marked `# wrong`, and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

HANDLERS = """
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pydantic

from reactive_orch import Event, EventTypes, NewEvent, Projection

Connection: TypeAlias = asyncpg.Connection[asyncpg.Record]
events = EventTypes()


@events("Placed", version=3, aggregate_type="Order", id_from="order_id")
@dataclass(frozen=True)
class Placed:
    order_id: str


@events("Paid")
class Paid(pydantic.BaseModel):
    order_id: str


@events("Shipped")
class Shipped(msgspec.Struct):
    order_id: str


@events.upcast(Placed, 1)
def _(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@events.upcast(Placed, 2)
def _(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


@events.upcast(Placed, 2)  # wrong
def forgets_to_return(payload: dict[str, Any]) -> None: ...


orders = events.projection("orders", retries=3, start="now")


@orders.on(Placed)
async def placed(order: Placed, tx: Connection) -> None: ...


@orders.on(Paid)
async def paid(order: Paid, tx: Connection, event: Event) -> None: ...


@orders.on(Placed, Paid, Shipped)
async def any_of_them(order: Placed | Paid | Shipped, tx: Connection) -> None: ...


@orders.on(Placed)
async def any_object(order: object, tx: Connection) -> None: ...


@orders.on(Placed)  # wrong
async def another_class(order: Paid, tx: Connection) -> None: ...


@orders.on(Placed)  # wrong
async def another_class_with_event(order: Paid, tx: Connection, event: Event) -> None: ...


@orders.on(Placed, Paid)  # wrong
async def one_of_two(order: Paid, tx: Connection) -> None: ...


@orders.on(Placed)  # wrong
async def no_event(order: Placed, tx: Connection, event: str) -> None: ...


@orders.on(Placed)
def not_async(order: Placed, tx: Connection) -> None: ...


@orders.on(Placed)  # wrong
async def without_tx(order: Placed) -> None: ...


@events.batch("index", Placed, concurrency=2)
async def index(orders: Sequence[Placed], tx: Connection) -> None: ...


@events.batch("several", Placed, Shipped)
async def several(orders: Sequence[Placed | Shipped], tx: Connection, events: Sequence[Event]) -> None: ...


@events.batch("index", Placed)  # wrong
async def index_of_another(orders: Sequence[Paid], tx: Connection) -> None: ...


@events.batch("index", Placed)  # wrong
async def no_batch(order: Placed, tx: Connection) -> None: ...


events.projection("orders", retry=3)  # wrong
events.projection("orders", event_types=["Placed"])  # wrong
events.new(Placed("1"), partition="ada")  # wrong
Placed(1)  # wrong

new: NewEvent = events.new(Placed("1"), aggregate_id="1", partition_key="ada")
projections: list[Projection] = [orders, index, several]


async def calls(tx: Connection, event: Event) -> None:
    await placed(Placed("1"), tx)
    await paid(Paid(order_id="1"), tx, event)
    await placed(Shipped("1"), tx)  # wrong
"""


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    file = tmp_path / "handlers.py"
    file.write_text(HANDLERS)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)], "typeCheckingMode": "strict"}))
    return file


WRONG = {number for number, line in enumerate(HANDLERS.splitlines(), 1) if line.endswith("# wrong")}


def _said(*command: str | Path) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def test_mypy_refuses_what_is_wrong_and_nothing_else(sample: Path) -> None:
    said = _said("mypy", "--strict", sample)
    found = {int(line) for line in re.findall(r"handlers\.py:(\d+): error", said)}
    assert found == WRONG, said


def test_pyright_refuses_what_is_wrong_and_nothing_else(sample: Path) -> None:
    said = _said("pyright", "--pythonpath", sys.executable, "--project", sample.parent, "--outputjson", sample)
    told = [each for each in json.loads(said)["generalDiagnostics"] if each["severity"] == "error"]
    assert {each["range"]["start"]["line"] + 1 for each in told} == WRONG, said
