"""`watch` in a terminal and in a pipe, with real workers; what it costs, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.command_line import NOBODY_LISTENS, UNREACHABLE, run, started
from integration_test.harness.connections import connected
from integration_test.harness.processes import WorkerProcess
from integration_test.harness.terminals import ENTERED, LEFT, SHOW_CURSOR, Terminal
from integration_test.harness.waiting import wait_until
from reactive_orch.commands import watch
from reactive_orch.looking import eyes as looking_eyes
from reactive_orch.postgres.channels import EVENTS_CHANNEL, GENERATIONS_CHANNEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.cluster import Cluster
    from reactive_orch.errors import ReactiveOrchError
    from reactive_orch.model.overview import Overview


def assert_restored(terminal: Terminal) -> None:
    """Raise AssertionError unless the shell has its screen, its cursor and its keys back."""
    assert terminal.written.count(ENTERED) == terminal.written.count(LEFT) >= 1
    assert terminal.written.rfind(LEFT) > terminal.written.rfind(ENTERED)
    assert terminal.written.rfind(SHOW_CURSOR) > terminal.written.rfind("\x1b[?25l")
    assert terminal.attributes == terminal.attributes_before


async def test_workers_come_and_go_on_the_screen(database: str) -> None:
    async with Terminal("watch", "--database-url", database) as terminal:
        await terminal.shows("no replica set yet")
        async with WorkerProcess(database, "first") as first:
            await terminal.shows(r"generation 1: join of \d+, 64 partitions moved, settled in \d+ ms")
            await terminal.shows(r"A \d+ \S+ +serving +64 ")
            await terminal.shows(r"handled +running +0 .*▁")
            await terminal.shows("  A{64}")
            async with WorkerProcess(database, "second") as second:
                await terminal.shows(r"generation 2: join of \d+, 32 partitions moved, settled")
                await terminal.shows(r"B \d+ \S+ +serving +32 ")
                await terminal.shows("  (?=[AB]{64})(?=.*A)(?=.*B)")
                member = await first.member()
                first.send(signal.SIGKILL)
                await terminal.shows(rf"generation 3: death of {member}, 32 partitions moved, settled")
                await terminal.shows("  B{64}")
                await terminal.shows_no_more("A ")
                await second.stop()
            await terminal.shows(r"generation 4: leave [^\n]*\n[^\n]*generation 3: death ")
            await terminal.shows("no worker")
            await terminal.shows("note +replica set test: no worker lives")
        terminal.type("q")
        assert await terminal.ended() == 0
        assert_restored(terminal)
        assert terminal.written.endswith(LEFT), "nothing of it is left on the shell's screen"


@pytest.mark.parametrize("end", ["\x03", signal.SIGTERM, thorough(signal.SIGINT), thorough("Q")])
async def test_it_ends_when_it_is_asked_to_and_leaves_the_terminal_as_it_was(
    database: str, end: str | signal.Signals
) -> None:
    async with Terminal("watch", "--database-url", database) as terminal:
        await terminal.shows("no replica set yet")
        assert terminal.attributes != terminal.attributes_before, "what is typed is not shown"
        if isinstance(end, str):
            terminal.type(end)
        else:
            terminal.send(end)
        assert await terminal.ended() == 0
        assert_restored(terminal)


async def test_the_picture_fits_the_window_when_that_changes(database: str) -> None:
    async with WorkerProcess(database, "first"), Terminal("watch", "--database-url", database) as terminal:
        await terminal.shows("  A{64}")
        terminal.resize(40, 9)
        await terminal.shows(r"^reactive_orch[^\n]{0,27}\r\n")
        assert len(terminal.screen.splitlines()) == 9
        assert all(len(line) == 40 for line in terminal.screen.splitlines())
        terminal.resize(200, 50)
        await terminal.shows("  A{64}")
        assert all(len(line) == 200 for line in terminal.screen.splitlines())


async def test_a_shell_can_suspend_it(database: str) -> None:
    async with Terminal("watch", "--database-url", database) as terminal:
        await terminal.shows("no replica set yet")
        terminal.type("\x1a")

        async def stopped() -> bool:
            return Path(f"/proc/{terminal.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

        async def restored() -> bool:
            return "\x1b[?1049l" in terminal.written

        await wait_until(stopped, what="it is stopped")
        await wait_until(restored, what="what it wrote before has come")
        assert_restored(terminal)
        terminal.written = ""
        terminal.send(signal.SIGCONT)
        await terminal.shows("no replica set yet")
        terminal.type("q")
        assert await terminal.ended() == 0
        assert_restored(terminal)


async def test_the_last_picture_stays_while_the_database_is_away(database: str, cluster: Cluster) -> None:
    async with WorkerProcess(database, "first"), Terminal("watch", "--database-url", database) as terminal:
        await terminal.shows("  A{64}")
        await asyncio.to_thread(cluster.stop, "immediate")
        try:
            await terminal.shows(r"the database is not reachable since \d\d:\d\d:\d\dZ: ")
            assert re.search("  A{64}", terminal.screen)
            assert "no problems" not in terminal.screen
            terminal.resize(60, 20)
            await terminal.shows(r"^reactive_orch[^\n]{0,47}\r\n")
        finally:
            await asyncio.to_thread(cluster.start)
        await terminal.shows_no_more("not reachable")
        terminal.resize(80, 24)
        await terminal.shows("  A{64}")
        terminal.type("q")
        assert await terminal.ended() == 0
        assert_restored(terminal)


async def test_without_colours_letters_tell_workers_apart(database: str) -> None:
    async with (
        WorkerProcess(database, "first"),
        Terminal("watch", "--database-url", database, NO_COLOR="1") as terminal,
    ):
        await terminal.shows("  A{64}")
        assert not re.search(r"\x1b\[[0-9;]*[34][0-9]", terminal.written), "no colour"


async def lines_of(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    async with asyncio.timeout(60):
        async for line in process.stdout:
            yield line.decode().rstrip("\n")


async def until(lines: AsyncIterator[str], pattern: str) -> list[str]:
    """Return the lines up to the first one that matches."""
    before: list[str] = []
    async for line in lines:
        before.append(line)
        if re.search(pattern, line):
            return before
    msg = f"never said {pattern!r}: {before}"
    raise AssertionError(msg)


async def test_in_a_pipe_it_writes_a_line_for_each_change(database: str) -> None:
    async with started("watch", "--database-url", database, PYTHONUNBUFFERED="") as process:
        lines = lines_of(process)
        said = await until(lines, "no replica set has been seen yet")
        async with WorkerProcess(database, "first") as first:
            said += await until(lines, r"replica set test: worker \d+: serving")
            said += await until(lines, r"replica set test: generation 1, workers 1; handled: events wait 0, ")
            first.send(signal.SIGKILL)
            said += await until(lines, r"note: replica set test: no worker lives")
        process.send_signal(signal.SIGTERM)
        said += [line async for line in lines]
        assert await process.wait() == 0
        assert len([line for line in said if "generation 1: join of" in line and "settled in" in line]) == 1
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ \S", line) for line in said)
        assert not [line for line in said if "\x1b" in line]
        assert process.stderr is not None
        assert await process.stderr.read() == b""


async def test_in_a_pipe_it_says_when_the_database_is_away_and_back(database: str, cluster: Cluster) -> None:
    async with started("watch", "--database-url", database) as process:
        lines = lines_of(process)
        await until(lines, "no replica set has been seen yet")
        await asyncio.to_thread(cluster.restart)
        said = await until(lines, "the database can be seen again")
        assert len([line for line in said if "the database is not reachable: " in line]) == 1


@pytest.mark.thorough
async def test_in_a_pipe_it_says_why_it_sees_nothing_and_when_that_changes(database: str, cluster: Cluster) -> None:
    name = urlsplit(database).path.removeprefix("/")
    async with started("watch", "--database-url", database) as process, connected(cluster.url("postgres")) as owner:
        lines = lines_of(process)
        await until(lines, "no replica set has been seen yet")
        async with connected(database) as locker, locker.transaction():
            await locker.execute("LOCK TABLE reactive_orch.members IN ACCESS EXCLUSIVE MODE")
            await until(lines, rf"reactive_orch\.members is locked by pid {locker.get_server_pid()} of postgres")
        assert not [line for line in await until(lines, "can be seen again") if "reachable" in line]
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await until(lines, f"database is not reachable: .*database .{name}. does not exist")
        await owner.execute(f"CREATE DATABASE {name}")
        await until(lines, "nothing can be seen of the database: there is no schema reactive_orch")


async def test_a_dumb_terminal_gets_lines(database: str) -> None:
    async with Terminal("watch", "--database-url", database, TERM="dumb") as terminal:
        await terminal.shows(r"\d\d:\d\d:\d\dZ no replica set has been seen yet")
        terminal.type("\x03")
        assert await terminal.ended() == 0
        assert "\x1b" not in terminal.written
        assert terminal.attributes == terminal.attributes_before


async def test_nobody_reads_any_more(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = "exec 3>&2; { python -m reactive_orch watch --database-url $0 2>&3; echo ended >&3; } | head -1"
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    process = await asyncio.create_subprocess_exec(
        "sh", "-c", command, database, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert out.decode().count("\n") == 1
    assert err == b"ended\n"


class Seen:
    """Whoever is told of each look."""

    def __init__(self) -> None:
        self.began: list[float] = []

    async def show(self, _: Overview) -> None:
        self.began.append(time.monotonic())

    async def miss(self, error: ReactiveOrchError) -> None:
        raise error


async def test_a_change_brings_a_look_many_bring_few_and_appends_none(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking_eyes, "LOOK_EVERY_S", 1000.0)
    monkeypatch.setattr(watch, "LOOK_GAP_S", 0.3)
    async with WorkerProcess(database, "first", "shop") as worker:
        await worker.ready()
    eyes, seen = watch.eyes_on(database, "shop"), Seen()

    async def looked() -> bool:
        return len(seen.began) > 1

    async with connected(database) as connection, anyio.create_task_group() as tasks:
        bell = await connection.fetchrow("SELECT last_value, is_called FROM reactive_orch.bell")
        tasks.start_soon(watch.look_on, eyes, await eyes.look(), seen)
        for channel, payload in ((EVENTS_CHANNEL, ""), (GENERATIONS_CHANNEL, "other")):
            await connection.execute("SELECT pg_notify($1, $2)", channel, payload)
        await anyio.sleep(3 * watch.LOOK_GAP_S)
        assert len(seen.began) == 1
        await connection.execute("SELECT pg_notify($1, 'shop')", GENERATIONS_CHANNEL)
        await wait_until(looked, what="it looks")
        end = time.monotonic() + 4 * watch.LOOK_GAP_S
        while time.monotonic() < end:
            await connection.execute("SELECT pg_notify($1, 'shop')", GENERATIONS_CHANNEL)
        assert len(seen.began) <= 2 + 5
        assert await connection.fetchrow("SELECT last_value, is_called FROM reactive_orch.bell") == bell
        tasks.cancel_scope.cancel()
    await eyes.close()


async def test_a_look_that_takes_long_is_seldom(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking_eyes, "COST_MAX", 1e-6)
    monkeypatch.setattr(watch, "LOOK_GAP_S", 0.1)
    eyes = watch.eyes_on(database, None)
    await eyes.look()
    with anyio.move_on_after(1) as scope:
        await eyes.rest()
    assert scope.cancelled_caught, "it rests for a million times as long as it has looked"
    await eyes.close()


async def test_what_cannot_be_is_said_in_a_line(database: str, empty_database: str) -> None:
    said = await run("watch", "--replica-set", "shop", "--database-url", database)
    assert said.complaint() == "there is no replica set 'shop'; there is none yet"
    said = await run("watch", "--database-url", empty_database)
    assert "run `python -m reactive_orch migrate`" in said.complaint()
    said = await run("watch", "--database-url", NOBODY_LISTENS)
    said.complaint(UNREACHABLE)


async def test_a_terminal_that_takes_no_characters_does_not_keep_it(database: str) -> None:
    async with Terminal("watch", "--database-url", database, lines=50, columns=200) as terminal:
        await terminal.shows("no replica set yet")
        terminal.deafen()
        for lines in (49, 50) * 10:  # more than a terminal keeps for whoever reads it
            terminal.resize(200, lines)
            await anyio.sleep(0.1)
        terminal.send(signal.SIGTERM)
        await terminal.ended()
