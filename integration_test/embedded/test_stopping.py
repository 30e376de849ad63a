"""`stop-embedded`, as its users meet it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration_test.harness.command_line import run, started
from integration_test.harness.connections import connected
from integration_test.harness.places import new_directory
from integration_test.harness.waiting import wait_until
from reactive_orch.commands.command import connected as of_command
from reactive_orch.embedded import programs
from reactive_orch.embedded import server as embedded

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def place(copied: Path) -> Iterator[Path]:
    """A place for data that root's system user can get to, too."""
    made = new_directory("reactive_orch-embedded-")
    ours = directory_in(made)
    ours.parent.mkdir()
    ours.with_name(f"{ours.name}-programs-{programs.version()}").symlink_to(copied)
    yield made
    embedded.stop(directory_in(made))
    shutil.rmtree(made)


def directory_in(place: Path) -> Path:
    return place / "reactive_orch" / f"postgres-{programs.POSTGRES_MAJOR}"


async def test_it_is_stopped_unless_somebody_is_connected(place: Path) -> None:
    directory, here = directory_in(place), str(place)
    never = await run("stop-embedded", XDG_DATA_HOME=here)
    assert never.done() == (
        f"the embedded PostgreSQL does not run; it has never been started; its data would be in {directory}\n"
    )
    async with started("--replica-set", "r", "--http", "127.0.0.1:0", XDG_DATA_HOME=here) as worker:

        async def joined() -> bool:
            if not embedded.is_running(directory):
                return False
            async with connected(embedded.uri(directory)) as connection:
                sets = await connection.fetchval("SELECT to_regclass('reactive_orch.members')")
                return bool(sets and await connection.fetchval("SELECT count(*) FROM reactive_orch.members"))

        await wait_until(joined, what="the worker has joined")
        async with connected(embedded.uri(directory)) as connection:
            name = await connection.fetchval("SELECT name FROM reactive_orch.members")
            await connection.execute("SET application_name = 'psql'")
            refused = (await run("stop-embedded", XDG_DATA_HOME=here)).complaint()
        assert "2 others connected: " in refused
        assert f"worker {name}" in refused
        assert "psql as postgres" in refused
        assert refused.endswith("stop the embedded PostgreSQL? say so with --yes")
        assert embedded.is_running(directory)
        stopped = (await run("stop-embedded", "--yes", XDG_DATA_HOME=here)).done()
        assert worker.returncode is None, "it waits for its database"
    assert stopped.startswith(f"the embedded PostgreSQL is stopped; its data stay in {directory}\nrm -r {directory} ")
    assert not embedded.is_running(directory)
    again = await run("stop-embedded", XDG_DATA_HOME=here)
    assert again.done() == f"the embedded PostgreSQL does not run; its data are in {directory}\n"


async def test_nobody_is_asked_where_nobody_is_connected(place: Path) -> None:
    embedded.start(directory_in(place))
    assert "is stopped" in (await run("stop-embedded", XDG_DATA_HOME=str(place))).done()
    assert not embedded.is_running(directory_in(place))


async def test_a_file_in_its_place_is_named(place: Path) -> None:
    directory_in(place).touch()
    refused = (await run("stop-embedded", XDG_DATA_HOME=str(place))).complaint()
    assert f"embedded PostgreSQL in {directory_in(place)}: [Errno 20] Not a directory" in refused
    directory_in(place).unlink()


async def test_one_that_is_stopped_while_a_command_connects_is_started_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(place))
    url = embedded.start()
    embedded.stop()
    async with of_command(url) as connection:
        assert await connection.fetchval("SELECT 1") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
async def test_a_user_that_another_first_start_makes_meanwhile_is_taken(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two that make it at once give it two ids in turn, and the data of one belong to nobody."""
    name, useradd = f"reactive_orch_{os.getpid()}", shutil.which("useradd")
    (tmp_path / "useradd").write_text(f"#!/bin/sh\ntouch {tmp_path}/called; exec {useradd} $*\n")
    (tmp_path / "useradd").chmod(0o755)
    monkeypatch.setattr(embedded, "SYSTEM_USER", name)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    other = os.open("/etc", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    starting = asyncio.create_task(asyncio.to_thread(embedded.start, place / "postgres"))

    async def it_waits() -> bool:
        return re.search(rf"-> FLOCK .* {os.getpid()} ", Path("/proc/locks").read_text()) is not None

    try:
        await wait_until(it_waits)
        subprocess.run([str(useradd), "--system", name], check=True)
        os.close(other)
        await starting
        assert (place / "postgres").stat().st_uid == pwd.getpwnam(name).pw_uid
        assert not (tmp_path / "called").exists()
    finally:
        embedded.stop(place / "postgres")
        subprocess.run(["userdel", name], check=False, capture_output=True)  # noqa: S607


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_root_is_told_before_a_user_is_made(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, said = f"reactive_orch_{os.getpid()}", list[str]()
    monkeypatch.setattr(embedded, "SYSTEM_USER", name)

    def say(line: str) -> None:
        said.append(line)
        with pytest.raises(KeyError):
            pwd.getpwnam(name)

    try:
        embedded.start(place / "postgres", say=say)
        embedded.stop(place / "postgres")
        assert pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", name], check=False, capture_output=True)  # noqa: S607
    (line,) = said
    assert line.endswith(f", run by the system user {name}, which is made for it, as root may not")
