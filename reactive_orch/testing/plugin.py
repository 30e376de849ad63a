"""The fixtures, for pytest. This module is loaded into every run of pytest where the package is installed.

So it imports nothing before a test asks for a fixture.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.testing.databases import Databases
    from reactive_orch.testing.orch import Orch


@pytest.fixture(scope="session")
def orch_tables() -> Any:
    """Say what makes your own tables, once, before the first test: override it in your conftest.py.

    It returns SQL, the Path of a file of SQL, an async function that gets an asyncpg connection, or a plain function
    that gets the URL of the database; or a list of these.
    """
    return []


@pytest.fixture(scope="session")
def _orch_databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    from reactive_orch.errors import ReactiveOrchError
    from reactive_orch.testing.databases import databases

    base = tmp_path_factory.getbasetemp()
    meeting = base.parent if hasattr(request.config, "workerinput") else base  # xdist's processes have one each
    tables = request.getfixturevalue("orch_tables")
    with contextlib.ExitStack() as stack:
        try:
            made = stack.enter_context(databases(meeting, _database_url(), tables))
        except ReactiveOrchError as error:
            made, why = None, str(error)
        if made is None:  # outside of the handler: one sentence, and nothing that it came from
            pytest.fail(f"the fixture orch has no database: {why}", pytrace=False)
        yield made


def _database_url() -> str | None:
    from reactive_orch.address import database_url
    from reactive_orch.errors import ConfigError

    given = os.environ.get("DATABASE_URL")
    if given == "":
        msg = "DATABASE_URL is set, but empty: give it an address, or unset it for the embedded server"
        raise ConfigError(msg)
    return None if given is None else database_url(given, os.environ)


@pytest.fixture
def orch(_orch_databases: Databases) -> Iterator[Orch]:
    """Have a migrated database of this test's own, with your tables, and what a test does with projections on it."""
    from reactive_orch.testing.orch import Orch

    with _orch_databases.another() as url:
        yield Orch(url)
