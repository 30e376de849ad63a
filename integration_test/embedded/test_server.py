"""The embedded server, as its users meet it: several processes at once, crashes, restarts, missing pieces."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from integration_test.harness.places import new_directory
from reactive_orch.embedded import programs
from reactive_orch.embedded import server as embedded
from reactive_orch.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_START = """
import pathlib, sys
from reactive_orch.embedded import server as embedded
print(embedded.start(pathlib.Path(sys.argv[1])), flush=True)
"""


@pytest.fixture
def directory(copied: Path) -> Iterator[Path]:
    """A place for a data directory that does not exist yet. Not pytest's: it is closed to root's system user."""
    parent = new_directory("reactive_orch-embedded-")
    (parent / f"postgres-programs-{programs.version()}").symlink_to(copied)
    yield parent / "postgres"
    embedded.stop(parent / "postgres")
    shutil.rmtree(parent)


@pytest.fixture
def bare() -> Iterator[Path]:
    """Such a place where no programs are either."""
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    parent.chmod(0o755)
    yield parent / "postgres"
    embedded.stop(parent / "postgres")
    shutil.rmtree(parent)


def _starter(directory: Path, *, then: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _START + then, str(directory)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _server_pid(directory: Path) -> int:
    return int((directory / "postmaster.pid").read_text().splitlines()[0])


async def _value(uri: str, sql: str) -> object:
    connection = await asyncpg.connect(uri)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_four_processes_at_once_on_an_empty_directory_share_one_server(bare: Path) -> None:
    starters = [_starter(bare) for _ in range(4)]
    uris = {starter.communicate()[0].strip() for starter in starters}
    assert [starter.returncode for starter in starters] == [0] * 4
    assert uris == {embedded.start(bare)}
    assert await _value(uris.pop(), "select 1") == 1


async def test_it_outlives_a_killed_starter(directory: Path) -> None:
    starter = _starter(directory, then="sys.stdin.read()")
    assert starter.stdout is not None
    uri = starter.stdout.readline().strip()
    pid = _server_pid(directory)
    starter.kill()
    starter.communicate()
    assert embedded.start(directory) == uri
    assert _server_pid(directory) == pid


async def test_data_survive_a_restart(directory: Path) -> None:
    await _value(embedded.start(directory), "create table kept as select 7 as seven")
    assert embedded.stop(directory)
    assert not embedded.stop(directory)
    assert await _value(embedded.start(directory), "select seven from kept") == 7


async def test_it_recovers_from_a_crash_although_its_pid_is_now_somebody_else(directory: Path) -> None:
    await _value(embedded.start(directory), "create table kept as select 7 as seven")
    _crash(directory)
    pid_file = directory / "postmaster.pid"
    _, *rest = pid_file.read_text().splitlines(keepends=True)
    somebody = subprocess.Popen(["sleep", "60"], user=directory.stat().st_uid)  # noqa: S607
    pid_file.write_text("".join([f"{somebody.pid}\n", *rest]))
    try:
        assert await _value(embedded.start(directory), "select seven from kept") == 7
    finally:
        somebody.kill()
        somebody.wait()


@pytest.mark.parametrize("left", [b"", b"\xff\xfe\n\x00", b"\0" * 300])
async def test_it_starts_after_a_power_cut_that_has_left_no_pid(directory: Path, left: bytes) -> None:
    await _value(embedded.start(directory), "create table kept as select 7 as seven")
    _crash(directory)
    (directory / "postmaster.pid").write_bytes(left)
    assert not embedded.is_running(directory)
    assert await _value(embedded.start(directory), "select seven from kept") == 7


def test_an_empty_directory_is_not_made_yet(directory: Path) -> None:
    directory.mkdir()
    embedded.start(directory)
    assert embedded.is_running(directory)


def test_data_of_another_version_are_named(directory: Path) -> None:
    directory.mkdir()
    (directory / "PG_VERSION").write_text("17\n")
    with pytest.raises(ConfigError, match=r"^[^\n]* holds data of PostgreSQL 17, and this is 18: move it away[^\n]*$"):
        embedded.start(directory)
    (directory / "PG_VERSION").rename(directory / "base")
    with pytest.raises(ConfigError, match=" holds no whole cluster, and this is 18: move it away"):
        embedded.start(directory)


def test_a_link_to_nowhere_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(directory.parent))
    link = embedded.data_directory()
    link.parent.mkdir()
    link.symlink_to("/nowhere/at/all")
    with pytest.raises(ConfigError, match="is a link to /nowhere/at/all, which is missing"):
        embedded.start()


def _crash(directory: Path) -> None:
    os.kill(_server_pid(directory), signal.SIGKILL)
    while embedded.is_running(directory):
        pass


async def test_nobody_else_reaches_it(directory: Path) -> None:
    uri = embedded.start(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert await _value(uri, "show listen_addresses") == ""
    assert await _value(uri, "show unix_socket_directories") == "."


def test_a_missing_extra_is_named(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_WHEEL", "no_such_wheel")
    with pytest.raises(ConfigError, match=r"^[^\n]*install reactive_orch\[embedded\] or give --database-url$"):
        embedded.start(directory)


def test_a_server_that_does_not_start_says_why(directory: Path) -> None:
    embedded.start(directory)
    embedded.stop(directory)
    with (directory / "postgresql.conf").open("a") as file:
        file.write("shared_buffers = 'nonsense'\n")
    with pytest.raises(Unavailable, match=r"^[^\n]*does not start: [^\n]*FATAL: [^\n]*$"):
        embedded.start(directory)


def test_a_path_too_long_for_a_socket_is_refused(directory: Path) -> None:
    with pytest.raises(ConfigError, match=r"has 1.. bytes, at most 103"):
        embedded.start(directory.with_name("x" * 100))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_root_is_told_of_a_place_its_server_cannot_reach(directory: Path) -> None:
    closed = directory.with_name("closed")
    closed.mkdir(mode=0o700)
    with pytest.raises(ConfigError, match=f"{closed} is closed to its system user"):
        embedded.start(closed / "postgres")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_root_gets_no_other_data_than_those_it_names(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = directory.with_name("closed")
    closed.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_DATA_HOME", str(closed / "data"))
    with pytest.raises(ConfigError, match=f"XDG_DATA_HOME is {closed}/data, but {closed} is closed to its system user"):
        embedded.data_directory()
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(closed))
    assert embedded.data_directory().parent == embedded.ROOT_DIRECTORY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")
def test_root_is_told_where_its_data_are_instead(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "ROOT_DIRECTORY", directory.parent)
    monkeypatch.setenv("HOME", str(directory.parent))
    said = list[str]()
    for _ in range(2):
        embedded.start(directory, say=said.append)
        embedded.stop(directory)
    assert [line.split()[0] for line in said] == ["making", "starting"]
    assert all("as root's home is closed to the user reactive_orch" in line for line in said)
