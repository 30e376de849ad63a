"""The fixtures, for pytest. This module is loaded into every run of pytest where the package is installed.

So it imports nothing before a test asks for a fixture.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from reactive_orch.testing.databases import Databases
    from reactive_orch.testing.orch import Orch

_Entered = TypeVar("_Entered")


@pytest.fixture(scope="session")
def orch_tables() -> Any:
    """Say what makes your own tables, once, before the first test: override it in a conftest.py or a module.

    It returns SQL, the Path of a file of SQL, an async function that gets an asyncpg connection, or a plain function
    that gets the URL of the database; or a list of these.
    """
    return []


@pytest.fixture(scope="session")
def _orch_databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    from reactive_orch.testing.databases import databases

    base = tmp_path_factory.getbasetemp()
    meeting = base.parent if hasattr(request.config, "workerinput") else base  # xdist's processes have one each
    with _or_told(databases(meeting, os.environ)) as made:
        yield made


@pytest.fixture
def orch(_orch_databases: Databases, orch_tables: Any) -> Iterator[Orch]:
    """Have a migrated database of this test's own, with your tables, and what a test does with projections on it."""
    from reactive_orch.testing.orch import Orch

    with _or_told(_orch_databases.another(orch_tables)) as url:
        yield Orch(url)


@contextlib.contextmanager
def _or_told(manager: AbstractContextManager[_Entered]) -> Iterator[_Entered]:
    """Enter it; of an error of ours that keeps us from that one sentence is told, and nothing that it came from."""
    from reactive_orch.errors import ReactiveOrchError

    with contextlib.ExitStack() as stack:
        try:
            entered = stack.enter_context(manager)
        except ReactiveOrchError as error:
            why = str(error)
        else:
            yield entered
            return
    pytest.fail(f"the fixture orch has no database: {why}", pytrace=False)
