"""The release before this one and this one: side by side, while the schema is migrated, and back again."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from integration_test.harness.checkers import (
    assert_each_once,
    assert_in_order,
    handled_by,
    wait_all_handle,
    wait_handled,
)
from integration_test.harness.command_line import run
from integration_test.harness.connections import connected, prepared
from integration_test.harness.load import Load
from integration_test.harness.processes import ROOT, WorkerProcess
from integration_test.harness.statements import refused
from integration_test.harness.waiting import wait_until
from reactive_orch.postgres.migrations import NEWEST


class Release(NamedTuple):
    """Some release's code, and what makes Python take it for the one that is installed."""

    cwd: Path
    variables: dict[str, str]


THIS = Release(ROOT, {})


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The release before: as it stood when the version's number was changed last."""
    changed = _git("log", "--format=%H", "--max-count=1", "-G^version = ", "--", "pyproject.toml").strip()
    if not changed or not _git("rev-parse", "--verify", "--quiet", f"{changed}^").strip():
        pytest.skip("the repository's history is not here (a shallow clone): git fetch --unshallow")
    code, installed = (tmp_path_factory.mktemp(name) for name in ("code", "installed"))
    archive = subprocess.run(["git", "archive", f"{changed}^"], cwd=ROOT, check=True, capture_output=True)  # noqa: S607
    subprocess.run(["tar", "-x", "-C", code], input=archive.stdout, check=True)  # noqa: S607
    uv = (Path(sys.executable).with_name("uv"), "pip", "install", "--python", sys.executable)
    subprocess.run(
        [*uv, "--quiet", "--offline", "--no-deps", "--no-build-isolation", "--target", installed, code], check=True
    )
    return Release(code, {"PYTHONPATH": str(installed)})


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True).stdout  # noqa: S607


async def test_a_schema_is_migrated_under_running_workers_and_both_releases_share_the_work(
    empty_database: str, previous: Release
) -> None:
    url = empty_database

    def worker(name: str, release: Release = THIS) -> WorkerProcess:
        return WorkerProcess(url, name, cwd=release.cwd, env=release.variables)

    async def done(release: Release, *command: str) -> str:
        return (await run(*command, cwd=release.cwd, DATABASE_URL=url, **release.variables)).done()

    async def tells_both(release: Release) -> bool:
        said = json.loads(await done(release, "status", "--json"))
        return len({told["version"] for told in said["replica_sets"][0]["workers"]} - {None}) == 2

    await done(previous, "migrate")
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(prepared(url))
        load = await stack.enter_async_context(Load(url))
        old, older = [await stack.enter_async_context(worker(name, previous)) for name in ("old", "older")]
        await wait_all_handle(connection, ["old", "older"])
        too_old = (await run("--replica-set", "test", "--http", "127.0.0.1:0", DATABASE_URL=url)).complaint()
        assert too_old.startswith("the schema is at step ")
        assert f"this program needs step {NEWEST}: run `python -m reactive_orch migrate`" in too_old

        assert "applied schema step " in await done(THIS, "migrate")
        await wait_all_handle(connection, ["old", "older"])
        new, newer = [await stack.enter_async_context(worker(name)) for name in ("new", "newer")]
        await wait_all_handle(connection, ["old", "older", "new", "newer"])
        for release in (THIS, previous):
            await wait_until(partial(tells_both, release), what="status has the versions, which heartbeats bring")

        await older.end()
        await old.stop()
        await wait_all_handle(connection, ["new", "newer"])
        await stack.enter_async_context(worker("old again", previous))
        await newer.end()
        await new.stop()
        await wait_all_handle(connection, ["old again"])
        await load.stop()
        await wait_handled(connection)
        await assert_each_once(connection)
        await assert_in_order(connection)
        assert set(await handled_by(connection)) == {"old", "older", "new", "newer", "old again"}


async def test_the_release_before_finds_all_that_it_needs_in_this_schema(database: str, previous: Release) -> None:
    files = [path for path in (previous.cwd / "reactive_orch").rglob("*.sql") if path.parent.name != "schema"]
    assert len(files) > 10
    async with connected(database) as connection:
        assert [await refused(connection, path) for path in files] == [{}] * len(files)
