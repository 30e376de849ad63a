"""Commands that take long: in bounded memory, all or nothing, and one sees how far they are."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration_test.harness.command_line import FAILED, run, started
from integration_test.harness.connections import as_role, connected, prepared
from integration_test.harness.load import append_events, gate_closed
from integration_test.harness.processes import ROOT, WorkerProcess, worker_command
from integration_test.harness.projections import variables
from integration_test.harness.terminals import on_a_terminal
from integration_test.harness.waiting import TIMEOUT_S, wait_until
from reactive_orch import NewEvent, append
from reactive_orch.postgres.appending import asker, turn
from reactive_orch.postgres.grants import grants

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from integration_test.harness.connections import Connection

_COUNT = "SELECT count(*) FROM reactive_orch.events"
_CONTIGUOUS = """
SELECT count(*) = 0 FROM (
    SELECT FROM reactive_orch.events GROUP BY aggregate_id
    HAVING min(aggregate_version) <> 1 OR max(aggregate_version) <> count(*)) AS odd
"""
_WRITES_TO_THE_LOG = """
SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
WHERE l.relation = 'reactive_orch.events'::regclass AND l.mode = 'RowExclusiveLock'
  AND a.datname = current_database() AND a.pid <> pg_backend_pid()
"""
_OF_COMMANDS = """
SELECT array_agg(a.pid) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.application_name LIKE 'reactive_orch:command:%' AND a.state = 'active'
"""
_SLOW = """
CREATE FUNCTION public.slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_sleep(600) WHERE NEW.event_type = 'Slow';
    RETURN NEW;
END $$;
CREATE TRIGGER slow BEFORE INSERT ON reactive_orch.events FOR EACH ROW EXECUTE FUNCTION public.slow();
"""

_MEASURED = """
import re, sys
from pathlib import Path
from reactive_orch.cli import main
code = main(sys.argv[1:])
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
sys.exit(code)
"""
MB = 1_000_000
MORE_MEMORY = 25 * MB
"""A part is 2 MB, or 1,000 events; it is there in several forms, and asyncpg has buffers of its own."""
TALKATIVE = "integration_test.harness.talkative"


def line(key: str, event_type: str = "Placed", **rest: Any) -> str:
    return json.dumps({"aggregate_type": "Order", "aggregate_id": key, "event_type": event_type, **rest}) + "\n"


def lines(count: int, keys: int = 7, note: int = 100) -> Iterable[str]:
    return (line(f"key-{n % keys}", payload={"n": n, "note": "x" * note}) for n in range(count))


async def memory_of(database: str, given: Path, appended: int) -> int:
    """How many bytes `append` has had in memory at most."""
    with given.open("rb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _MEASURED, "append", "--database-url", database),
            cwd=ROOT,
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
    said, kilobytes = out.decode().splitlines()
    assert (process.returncode, said) == (0, f"appended {appended} event{'s' if appended > 1 else ''}")
    return int(kilobytes) * 1024


def written(path: Path, content: Iterable[str]) -> Path:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(content)
    return path


@pytest.mark.thorough
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nothing else tells the memory of one process")
async def test_memory_does_not_grow_with_the_input(database: str, tmp_path: Path) -> None:
    few, many = (written(tmp_path / f"{count}", lines(count, note=8_000)) for count in (1_000, 10_000))
    base = await memory_of(database, few, 1_000)
    assert many.stat().st_size > 3 * MORE_MEMORY
    assert await memory_of(database, many, 10_000) < base + MORE_MEMORY
    async with connected(database) as connection:
        assert await connection.fetchval(_COUNT) == 11_000
        assert await connection.fetchval(_CONTIGUOUS)


@pytest.mark.thorough
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("keys", [1, 1_000_000])
async def test_a_million(database: str, tmp_path: Path, keys: int) -> None:
    base = await memory_of(database, written(tmp_path / "few", lines(2_000, keys)), 2_000)
    given = written(tmp_path / "many", lines(1_000_000, keys))
    assert await memory_of(database, given, 1_000_000) < base + MORE_MEMORY
    async with connected(database) as connection:
        assert await connection.fetchval(_COUNT) == 1_002_000
        assert await connection.fetchval(_CONTIGUOUS)


@pytest.mark.thorough
@pytest.mark.timeout(1800)
async def test_a_payload_of_200_mb(database: str, tmp_path: Path) -> None:
    given = written(tmp_path / "large", [line("a", payload="x" * 200 * MB), line("a")])
    assert await memory_of(database, given, 2) < 2_000 * MB
    async with connected(database) as connection:
        lengths = await connection.fetch("SELECT length(payload) FROM reactive_orch.events ORDER BY aggregate_version")
        assert [row[0] for row in lengths] == [200 * MB + 2, 0]


async def test_order_and_versions_are_those_of_the_lines(database: str) -> None:
    async with connected(database) as connection:
        before = [NewEvent(aggregate_type="Order", aggregate_id="key-3", event_type="Before")] * 5
        await append(connection, before)
        ended = await run("append", "--database-url", database, stdin="".join(lines(2_500)))
        assert ended.done() == "appended 2500 events\n"
        rows = await connection.fetch(
            "SELECT aggregate_id, payload FROM reactive_orch.events ORDER BY global_position OFFSET 5"
        )
        assert [json.loads(row["payload"])["n"] for row in rows] == list(range(2_500))
        assert await connection.fetchval(_CONTIGUOUS)


async def test_an_exact_version_of_many_lines(database: str) -> None:
    one = "".join(lines(2_500, keys=1))
    url = ("--database-url", database)
    assert (await run("append", "--expected", "none", *url, stdin=one)).code == 0
    late = (await run("append", "--expected", "7", *url, stdin=one)).complaint(FAILED)
    assert late == "default/Order/key-0 is at version 2500, not at 7"
    several = (await run("append", "--expected", "none", *url, stdin="".join(lines(2_500, 2_000)))).complaint()
    assert "but the events belong to more than 1000" in several
    async with connected(database) as connection:
        assert await connection.fetchval(_COUNT) == 2_500


TOO_LONG = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(5_000))
"""No index takes that, nor can it be compressed to what it takes."""
TAKEN = {"event_id": "00000000-0000-0000-0000-000000000007"}
FAULTS = {
    "no JSON": ("{", "line 2342: ", 2),
    "too long": (line(TOO_LONG), "line 2342: index row", 2),
    "no number of PostgreSQL's": (line("a", metadata={"n": 1})[:-5] + ": 1" + "0" * 140_000 + "}}\n", "line 2342: ", 2),
    "taken": (line("a", **TAKEN), "line 2342: an event_id is taken", FAILED),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("temporary", [True, False])
async def test_a_mistake_far_down_is_named_and_nothing_is_appended(database: str, fault: str, temporary: bool) -> None:  # noqa: FBT001
    text, says, code = FAULTS[fault]
    if fault == "taken" and not temporary:
        says = "lines 2002 to 3001: an event_id is taken"  # by one that had been written before
    content = [line("a", **TAKEN), "\n", *lines(2_339), text, *lines(1_000)]
    async with connected(database) as connection:
        await _may_make_temporary_tables(connection, may=temporary)
        ended = await run("append", "--database-url", as_role("appender", database), stdin="".join(content))
        assert says in ended.complaint(code)
        assert "nothing was appended" in ended.err
        assert await connection.fetchval(_COUNT) == 0


@pytest.fixture(autouse=True)
async def appender(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """A role that may append and no more, where a test asks for it."""
    if "temporary" not in request.fixturenames:
        yield
        return
    async with connected(request.getfixturevalue("database")) as connection:
        await connection.execute(f"CREATE ROLE appender LOGIN; {grants('appender', 'appender')}")
        yield
        await connection.execute("DROP OWNED BY appender; DROP ROLE appender")


async def _may_make_temporary_tables(connection: Connection, *, may: bool) -> None:
    if not may:
        name = await connection.fetchval("SELECT quote_ident(current_database())")
        await connection.execute(f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC")


@pytest.mark.parametrize("temporary", [True, False])
async def test_who_may_only_append_may_append_many(database: str, temporary: bool) -> None:  # noqa: FBT001
    async with connected(database) as connection:
        await _may_make_temporary_tables(connection, may=temporary)
        ended = await run("append", "--database-url", as_role("appender", database), stdin="".join(lines(2_500)))
        assert ended.done() == "appended 2500 events\n"
        assert await connection.fetchval(_CONTIGUOUS)


@contextlib.asynccontextmanager
async def appending(
    database: str, content: Iterable[str], module: str = "reactive_orch"
) -> AsyncIterator[asyncio.subprocess.Process]:
    async with started("append", "--database-url", database, module=module) as process:
        assert process.stdin is not None
        process.stdin.write("".join(content).encode())
        process.stdin.close()
        yield process


_SENT = """
SELECT max(pg_relation_size(c.oid)) FROM pg_class c WHERE c.relname = 'staged' AND c.relpersistence = 't'
"""
_WAITS_TO_WRITE = f"{_WRITES_TO_THE_LOG} AND NOT l.granted"


async def test_all_is_sent_before_it_writes_to_the_log(database: str) -> None:
    """From its first row in the log on, readers wait for the last."""
    async with prepared(database) as connection:
        async with connected(database) as other, other.transaction():
            await other.execute("LOCK TABLE reactive_orch.events IN EXCLUSIVE MODE")
            async with appending(database, lines(2_500)):

                async def waits_to_write() -> bool:
                    return bool(await connection.fetchval(_WAITS_TO_WRITE))

                await wait_until(waits_to_write, what="it waits to write to the log")
                assert await connection.fetchval(_SENT) > 2_500 * 100
        assert await connection.fetchval(_COUNT) == 0


async def test_it_says_for_whose_append_it_waits(database: str) -> None:
    async with prepared(database) as connection:
        async with connected(database) as other, other.transaction():
            await asker(other)(turn([("default", "Order", "key-0")]))
            async with appending(database, lines(2_500, keys=1), TALKATIVE) as process:
                said, pid = await first_line(process), other.get_server_pid()
                assert re.match(rf"reactive_orch: append: waiting: 0:00:\d\d so far, for pid {pid} of postgres", said)
                assert await connection.fetchval(_WRITES_TO_THE_LOG) == 0
        assert await connection.fetchval(_COUNT) == 0


INTERRUPTED = b"reactive_orch: append: interrupted; nothing was appended\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_ends_it_at_once_here_and_on_the_server(database: str, number: signal.Signals) -> None:
    async with prepared(database) as connection:
        await connection.execute(_SLOW)
        async with appending(database, [*lines(2_000), line("key-0", "Slow")]) as process:

            async def writes() -> bool:
                return bool(await connection.fetchval(_WRITES_TO_THE_LOG))

            await wait_until(writes, what="it writes to the log")
            process.send_signal(number)
            out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
            code, says = (FAILED, INTERRUPTED) if number == signal.SIGINT else (-number, b"")
            assert (process.returncode, out, err) == (code, b"", says)

        async def over() -> bool:
            return not await connection.fetchval(_OF_COMMANDS) and not await connection.fetchval(_WRITES_TO_THE_LOG)

        await wait_until(over, what="the server has ended the statement")
        assert await connection.fetchval(_COUNT) == 0


async def test_through_a_pipe_it_says_now_and_then_how_far_it_is(database: str) -> None:
    async with started("append", "--database-url", database) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        said = asyncio.create_task(process.stderr.readline())
        count = 0
        while not said.done():
            process.stdin.write(line("key", payload="x" * 50_000).encode())
            await process.stdin.drain()
            count += 1
            await asyncio.wait([said], timeout=0.1)
        assert re.fullmatch(r"reactive_orch: append: reading: \d+ MB, [\d.]+ MB/s\n", (await said).decode())
        process.stdin.close()
        assert process.stdout is not None
        assert await process.stdout.read() == f"appended {count} events\n".encode()


EVENTS = 40
"""Two seconds of work."""


def until_idle(database: str, *options: str) -> list[str]:
    return worker_command(
        database, "test", ["handled_slowly"], "--until-idle", "--batch", "10", *options, module=TALKATIVE
    )


async def idle(database: str, *options: str) -> list[str]:
    """What a worker says until it is idle, which takes it a second or more."""
    async with prepared(database) as connection:
        await append_events(connection, EVENTS)
    process = await asyncio.create_subprocess_exec(
        *until_idle(database, *options),
        cwd=ROOT,
        env={**os.environ, **variables("one", "test")},
        stderr=subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode == 0
    return err.decode().splitlines()


async def test_until_idle_with_lines_for_people(database: str) -> None:
    said = [each for each in await idle(database, "--log-format", "text") if each.startswith("reactive_orch: ")]
    words = r"reactive_orch: replica set test: handling: \d+%, \d+ of \d+ events, \d+ events/s, 0:00:\d\d left"
    assert [each for each in said if re.fullmatch(words, each)], said


async def test_until_idle_with_lines_for_machines_there_is_no_word_of_it(database: str) -> None:
    for each in await idle(database, "--log-format", "json"):
        json.loads(each)


BAR, COLOUR = "━", "\x1b[3"


@pytest.mark.parametrize(
    ("environment", "bar", "coloured"),
    [
        ({"TERM": "xterm-256color"}, True, True),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, True, False),
        ({"TERM": "dumb"}, False, False),
    ],
)
async def test_on_a_terminal_there_is_a_bar_and_lines_stay_whole_above_it(
    database: str,
    environment: dict[str, str],
    bar: bool,  # noqa: FBT001
    coloured: bool,  # noqa: FBT001
) -> None:
    async with prepared(database) as connection:
        await append_events(connection, EVENTS)
    env = {**os.environ, **variables("one", "test"), **environment}
    got = (await asyncio.to_thread(on_a_terminal, until_idle(database), env)).replace("\n", "\r\n")
    drawn = [each for each in re.split(r"\r\x1b\[2K|\r\n", got) if "replica set test: handling" in each]
    assert drawn
    assert any(BAR in each for each in drawn) == bar
    assert (COLOUR in "".join(drawn)) == coloured
    assert re.search(r"(?m)(^|\x1b\[2K)\d{4}-\S+ INFO    worker 1 has left test trace_id=\w{32}\r\n", got)
    assert "\x1b[?25l" not in got, "the cursor was hidden"


async def first_line(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    return (await asyncio.wait_for(process.stderr.readline(), TIMEOUT_S)).decode()


async def output(process: asyncio.subprocess.Process) -> str:
    """What it says on standard output until its clean end."""
    out, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0
    return out.decode()


async def test_migrate_says_who_holds_what_it_waits_for(database: str) -> None:
    async with connected(database) as other:
        transaction = other.transaction()
        await transaction.start()
        await other.execute("SELECT pg_advisory_xact_lock(1919906403, 0)")
        async with started("migrate", "--database-url", database, module=TALKATIVE) as process:
            said = await first_line(process)
            assert re.match(rf"reactive_orch: migrate: waiting: .*, for pid {other.get_server_pid()} of postgres", said)
            await transaction.rollback()
            assert (await output(process)).startswith("nothing to do: the schema has step")


async def test_rewind_says_whose_batch_it_waits_for(database: str) -> None:
    of = ("--replica-set", "test", "--projection", "handled_at_gate", "--to", "start", "--skip-unhandled", "--yes")
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "a", projections=["handled_at_gate"]) as worker,
    ):
        await worker.ready()
        async with gate_closed(database) as waiting:
            await append_events(connection, 10)

            async def in_flight() -> bool:
                return bool(await waiting())

            await wait_until(in_flight)
            async with started("rewind", *of, "--database-url", database, module=TALKATIVE) as process:
                said = await first_line(process)
        assert "rewind: waiting: 0:00:" in said
        assert re.search(rf"for pid \d+ of postgres \(reactive_orch:work:[^:]+:{worker.pid}:", said), said
