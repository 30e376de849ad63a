"""The command line as its users meet it: real processes, one clear line for each mistake, the documented exit codes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import socket
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest

from integration_test.harness.cases import thorough
from integration_test.harness.checkers import wait_settled
from integration_test.harness.cluster import Cluster, Standby
from integration_test.harness.command_line import (
    FAILED,
    NOBODY_LISTENS,
    UNREACHABLE,
    UNUSED_PORT,
    Ended,
    run,
    run_worker,
    started,
)
from integration_test.harness.connections import connected, prepared
from integration_test.harness.load import append_events
from integration_test.harness.processes import ROOT, WorkerProcess
from integration_test.harness.waiting import TIMEOUT_S, wait_until
from reactive_orch import NewEvent, append
from reactive_orch.http import server
from reactive_orch.postgres.migrations import NEWEST

STEPS = list(range(1, NEWEST + 1))

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# Each kind of mistake once as a process here; all of them, in less time, in tests/test_cli.py.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "required: --replica-set"),
        (["frobnicate"], "unknown command 'frobnicate'; there are migrate, append,"),
        thorough(["--replica-set"], "--replica-set: expected one argument"),
        thorough(["--replica-set", "x", "--colour"], "unrecognized arguments: --colour"),
        thorough(["migrate", "--colour"], "unrecognized arguments: --colour"),
        thorough(["rewind"], "required: --replica-set, --projection, --to"),
        thorough(["append", "--expected", "soon"], "'soon' is neither any, none nor a version"),
        thorough(["append", "--event-type", "T"], "needs --aggregate-type and --aggregate-id too"),
        thorough(["append", "--aggregate-id", "1"], "needs --aggregate-type and --event-type too"),
        thorough(["append", "--payload", "{}"], "needs --aggregate-type and --aggregate-id and --event-type too"),
    ],
)
async def test_wrong_usage(arguments: list[str], says: str) -> None:
    assert says in (await run(*arguments, DATABASE_URL=NOBODY_LISTENS)).complaint()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--batch many", "--batch: 'many' is no whole number"),
        thorough("--batch 0", "--batch (batch_events) must be 1 to 100000, not 0"),
        thorough("--heartbeat 0", "--heartbeat (heartbeat_s) must be 0.05 to 3600 seconds, not 0"),
        thorough("--heartbeat nan", "--heartbeat (heartbeat_s) must be 0.05 to 3600 seconds, not nan"),
        thorough("--heartbeat 5", "--stale-after (stale_after_s) must be at least three heartbeats (15 s), not 10"),
        ("--stale-after 1", "--stale-after (stale_after_s) must be at least three heartbeats (6 s), not 1"),
        thorough("--stale-after inf", "--stale-after (stale_after_s) must be at most a day"),
        thorough("--retries -1", "--retries (retries) must be 0 to 1000, not -1"),
        thorough("--http 8080", "--http '8080': give HOST:PORT, for instance 0.0.0.0:8080"),
        thorough("--http :8080", "give HOST:PORT"),
        thorough("--http 127.0.0.1:99999", "give HOST:PORT"),
        thorough("--http 127.0.0.1:http", "give HOST:PORT"),
        ("--http 192.0.2.1:0", "--http 192.0.2.1:0 cannot be served"),
    ],
)
async def test_an_impossible_option(options: str, says: str) -> None:
    assert says in (await run_worker(*options.split())).complaint()


async def test_all_impossible_options_are_named_at_once() -> None:
    line = (await run_worker("--batch", "0", "--stale-after", "1", "--retries", "2000")).complaint()
    assert re.fullmatch(r"--batch \S+ must be [^;]+; --stale-after [^;]+; --retries \S+ must be [^;]+", line)


@pytest.mark.parametrize(
    "name", ["", "é" * 32, "two\nlines"], ids=["empty", "64 bytes in 32 characters", "not printable"]
)
async def test_a_replica_set_name_that_cannot_be(name: str) -> None:
    line = (await run_worker("--replica-set", name)).complaint()
    assert line == f"replica-set name {name!r}: give 1 to 63 bytes of printable characters"


async def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"--http {address} cannot be served" in (await run_worker("--http", address)).complaint()


async def test_help_tells_every_command_and_option() -> None:
    texts = await asyncio.gather(*(run(*words.split(), "--help") for words in ("", "migrate", "append", "rewind")))
    main, *of_commands = (text.done() for text in texts)
    for word in ("--replica-set", "--projection", "--database-url", "--until-idle", "migrate", "append", "rewind"):
        assert word in main
    for word, text in zip(("--partitions", "--expected", "start|keep|POSITION"), of_commands, strict=True):
        assert word in text


_MODULES = {
    "one": "from reactive_orch import projection\n@projection('one')\nasync def one(event, tx): ...\nother = 5\n",
    "same": "from reactive_orch import projection\n@projection('one')\nasync def same(event, tx): ...\n",
    "none": "import reactive_orch\n",
    "lacks": "import no_such_module\n",
    "raises": "raise RuntimeError('several\\nlines')\n",
    "exits": "import sys\nsys.exit(0)\n",
    "broken": "def\n",
    "sync": "from reactive_orch import projection\n@projection('sync')\ndef handler(event, tx): ...\n",
    "nameless": "from reactive_orch import projection\n@projection('')\nasync def handler(event, tx): ...\n",
    "lanes": "from reactive_orch import projection\n@projection('x', concurrency=0)\nasync def f(event, tx): ...\n",
}


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A user's directory with modules of projections."""
    for name, text in _MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("projections", "says"),
    [
        ("missing", "--projection missing: importing 'missing' failed: there is none in /"),
        thorough("lacks", "importing 'lacks' failed: ModuleNotFoundError: No module named 'no_such_module'"),
        thorough("raises", "importing 'raises' failed: RuntimeError: several lines"),
        ("exits", "importing 'exits' failed: SystemExit: 0"),
        thorough("broken", "importing 'broken' failed: SyntaxError"),
        thorough("none", "--projection none: the module holds no projection"),
        thorough("one:two", "--projection one:two: one has no projection 'two'"),
        thorough("one:other", "--projection one:other: one has no projection 'other'"),
        ("one same", "two projections are named 'one'"),
        thorough(
            "sync",
            "projection 'sync': the handler handler is not async; write `async def`, or blocking=True",
        ),
        thorough("nameless", "projection name '': give 1 to 63 bytes"),
        ("lanes", "concurrency must be at least 1, not 0"),
    ],
)
async def test_projections_that_cannot_run(modules: Path, projections: str, says: str) -> None:
    options = [word for name in projections.split() for word in ("--projection", name)]
    assert says in (await run_worker(*options, cwd=modules)).complaint()


async def test_a_module_and_its_attribute_are_one_projection(database: str, modules: Path) -> None:
    options = ("--projection", "one", "--projection", "one:one")
    ended = await run_worker(*options, cwd=modules, url=database)
    assert ended.code == 0, ended


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("", "neither a URI (postgresql://user:password@host:5432/database) nor key=value words"),
        thorough("shop", "neither a URI"),
        thorough("mysql://host/shop", "neither a URI"),
        thorough("host=localhost shop", "cannot be read as key=value words from its character 15 on"),
        thorough("host='localhost", "cannot be read as key=value words from its character 1 on"),
        ("host=localhost port=none", "the database's port must be a number from 1 to 65535, not 'none'"),
        thorough("host=localhost port=65536", "not '65536'"),
        thorough("postgresql://localhost:none/shop", "not a valid URI"),
        thorough("postgresql://localhost:1,localhost:none/shop", "not a valid URI"),
        thorough("postgresql://[::1/shop", "not a valid URI"),
        ("postgresql://localhost/shop?sslmode=maybe", "`sslmode` parameter must be one of"),
    ],
)
async def test_not_a_database_address(address: str, says: str) -> None:
    by_option, by_variable = await asyncio.gather(
        run("status", "--database-url", address), run("status", DATABASE_URL=address or "?")
    )
    assert says in by_option.complaint()
    by_variable.complaint()


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://ann:s3/cret@localhost/shop",
        "postgresql://ann:s3?cret@localhost/shop",
        "host=localhost password=s3'cret",
        "ann:s3cret@localhost",
    ],
)
async def test_a_mistyped_password_is_not_shown(address: str) -> None:
    line = (await run("status", "--database-url", address)).complaint()
    assert not re.search(r"s3|cret", line)


async def status_into(output: int, database: str) -> tuple[int | None, bytes]:
    """Run `status` with this standard output, which is closed here; return the exit code and what else was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reactive_orch", "status", "--database-url", database),
        cwd=ROOT,
        stdout=output,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(output)
    _, err = await process.communicate()
    return process.returncode, err


async def test_output_that_cannot_be_written(database: str) -> None:
    ended = await status_into(os.open("/dev/full", os.O_WRONLY), database)
    assert ended == (1, b"reactive_orch: cannot write: No space left on device\n")


async def test_output_that_nobody_reads(database: str) -> None:
    """As in `reactive_orch status | head -1`."""
    reading, writing = os.pipe()
    os.close(reading)
    assert await status_into(writing, database) == (1, b"")


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    commands = ("migrate", "append --event-type T --aggregate-type A --aggregate-id 1", "status")
    ends = await asyncio.gather(
        run_worker(),
        run_worker("--migrate"),
        *(run(*command.split(), DATABASE_URL=NOBODY_LISTENS) for command in commands),
        run("status", POSTGRES_HOST="127.0.0.1", POSTGRES_PORT=str(UNUSED_PORT)),
    )
    for ended in ends:
        assert "database cannot be reached" in ended.complaint(UNREACHABLE)
        assert "127.0.0.1" in ended.err
        assert str(UNUSED_PORT) in ended.err
    no_host, no_socket = await asyncio.gather(
        run("status", "--database-url", "postgresql://ann@no-such-host.invalid/shop"),
        run("status", "--database-url", f"host={tmp_path} dbname=shop"),
    )
    assert "no-such-host.invalid" in no_host.complaint(UNREACHABLE)
    no_socket.complaint(UNREACHABLE)


async def test_a_database_that_is_not_there(cluster: Cluster) -> None:
    line = (await run_worker(url=cluster.url("no_such_database"))).complaint(UNREACHABLE)
    assert 'database "no_such_database" does not exist' in line


async def test_a_setting_the_server_does_not_know(database: str) -> None:
    line = (await run_worker(url=f"{database}?colour=red")).complaint()
    assert 'unrecognized configuration parameter "colour"' in line


PASSWORD = "p@ss/w?rd=' \\&é"  # noqa: S105 - a test's


@pytest.fixture
async def with_password(database: str) -> AsyncIterator[str]:
    """The same database, for a user who must give a password: this one's URL without it."""
    async with connected(database) as connection:
        hba = Path(await connection.fetchval("SHOW hba_file"))
        before = hba.read_text()
        hba.write_text(f"host all ann 127.0.0.1/32 scram-sha-256\n{before}")
        literal = await connection.fetchval("SELECT quote_literal($1)", PASSWORD)
        await connection.execute(f"CREATE ROLE ann SUPERUSER LOGIN PASSWORD {literal}")
        await connection.execute("SELECT pg_reload_conf()")
        url = database.replace("postgres@", "ann@")
        try:
            yield url
        finally:
            hba.write_text(before)
            await connection.execute("SELECT pg_reload_conf()")
            await connection.execute("DROP ROLE ann")


async def test_the_password_is_needed_and_never_shown(with_password: str) -> None:
    parts = urlsplit(with_password)
    name = parts.path.removeprefix("/")
    escaped = PASSWORD.replace("\\", "\\\\").replace("'", "\\'")
    words = f"host=127.0.0.1 port={parts.port} user=ann password='{escaped}' dbname={name} sslmode=disable"
    encoded = quote(PASSWORD, safe="")
    uri = with_password.replace("ann@", f"ann:{encoded}@")
    query = f"{with_password}?password={encoded}"
    five: dict[str, Any] = {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(parts.port), "POSTGRES_USER": "ann"}
    five |= {"POSTGRES_PASSWORD": PASSWORD, "POSTGRES_DB": name}
    right = [run_worker(url=address) for address in (uri, words, query)]
    right += [run("status", DATABASE_URL=uri), run("status", DATABASE_URL=words), run("status", **five)]
    wrong = [run_worker(url=address) for address in (f"{query}wrong", f"{words} password=wrong")]
    wrong += [run("status", **(five | {"POSTGRES_PASSWORD": "wrong"})), run_worker(url=with_password)]
    for ended in await asyncio.gather(*right):
        assert ended.code == 0, ended
        assert not re.search(r"p(@|%40)ss", ended.out + ended.err), ended
    for ended in await asyncio.gather(*wrong):
        assert not re.search(r"ss(/|%2F)w|wrong", ended.complaint(UNREACHABLE)), ended
    assert "password authentication failed" in ended.err


async def test_where_an_address_comes_from(database: str, cluster: Cluster) -> None:
    other = cluster.url("postgres")
    parts = urlsplit(database)
    five: dict[str, Any] = {"POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(parts.port), "POSTGRES_USER": "postgres"}
    here: dict[str, Any] = {**five, "POSTGRES_DB": parts.path.removeprefix("/")}
    option_first, variable_next, parts_last = await asyncio.gather(
        run("status", "--database-url", database, DATABASE_URL=other, **five),
        run("status", DATABASE_URL=database, **five),
        run("status", DATABASE_URL="", **here),
    )
    assert (
        option_first.done()
        == variable_next.done()
        == parts_last.done()
        == "no problems\nlog events: 64 partitions, last position 0, settled 0\n"
    )


@pytest.fixture
def standby(cluster: Cluster, database: str) -> Iterator[str]:
    """The URL of the same database on a standby."""
    with Standby(cluster) as made:
        yield made.url(database.rpartition("/")[2])


async def test_a_standby_is_refused_and_passed_over(standby: str, database: str) -> None:
    both = f"postgresql://postgres@127.0.0.1:{urlsplit(standby).port},127.0.0.1:{urlsplit(database).port}"
    alone, command, together = await asyncio.gather(
        run_worker(url=standby),
        run("status", "--database-url", standby),
        run_worker(url=both + urlsplit(database).path),
    )
    for ended in (alone, command):
        assert "the server is a standby: give the address of the primary, or all hosts" in ended.complaint()
    assert together.code == 0, together


@pytest.mark.parametrize(
    "command",
    [
        "--replica-set x --http 127.0.0.1:0",
        "append --event-type T --aggregate-type A --aggregate-id 1",
        "status",
        "rewind --replica-set x --projection y --to start",
    ],
)
async def test_a_missing_or_older_schema_says_what_to_run(command: str, empty_database: str, database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("DELETE FROM reactive_orch.schema_steps WHERE version = $1", NEWEST)
    missing, older = await asyncio.gather(*(run(*command.split(), DATABASE_URL=u) for u in (empty_database, database)))
    to_do = f"and this program needs step {NEWEST}: run `python -m reactive_orch migrate` with the same address"
    assert missing.complaint() == f"there is no schema reactive_orch in this database {to_do}"
    assert older.complaint() == f"the schema is at step {NEWEST - 1} in this database {to_do}"


SEQUENCE = "reactive_orch.events_global_position_seq"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(f"ALTER SEQUENCE {SEQUENCE} CACHE 2", f"run ALTER SEQUENCE {SEQUENCE} CACHE 1", id="cache"),
        pytest.param(
            f"ALTER SEQUENCE {SEQUENCE} INCREMENT 2", f"run ALTER SEQUENCE {SEQUENCE} INCREMENT 1", id="increment"
        ),
        pytest.param(
            "ALTER TABLE reactive_orch.events ALTER global_position DROP IDENTITY",
            "must be an identity column",
            id="no identity",
        ),
        pytest.param("DELETE FROM reactive_orch.logs", "logs is empty", id="no source"),
    ],
)
async def test_a_log_that_would_lose_events_is_not_read(database: str, change: str, says: str) -> None:
    async with connected(database) as connection:
        if "DROP IDENTITY" in change:
            await connection.execute("UPDATE reactive_orch.logs SET sequence = 'reactive_orch.member_ids'")
        await connection.execute(change)
    started, command = await asyncio.gather(run_worker(url=database), run("status", DATABASE_URL=database))
    assert says in started.complaint()
    assert says in command.complaint()


async def test_missing_privileges_are_named(database: str) -> None:
    async with connected(database) as connection:
        await connection.execute("DROP ROLE IF EXISTS stranger, reader; CREATE ROLE stranger LOGIN")
        await connection.execute("CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA reactive_orch TO reader")
        await connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA reactive_orch TO reader")
        await connection.execute("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA reactive_orch TO reader")
    try:
        stranger, reader = (database.replace("postgres@", f"{name}@") for name in ("stranger", "reader"))
        one = ("append", "--event-type", "T", "--aggregate-type", "A", "--aggregate-id", "1")
        ends = await asyncio.gather(
            run_worker(url=stranger),
            run("migrate", DATABASE_URL=stranger),
            run_worker(url=reader),
            run(*one, DATABASE_URL=reader),
        )
        words = ["denied for schema reactive_orch", "denied for", SEQUENCE.partition(".")[2], "table events"]
        for ended, says in zip(ends, words, strict=True):
            assert says in ended.complaint()
    finally:
        async with connected(database) as connection:
            await connection.execute("DROP OWNED BY stranger, reader; DROP ROLE stranger, reader")


async def test_migrate_any_number_of_times_even_at_once(empty_database: str) -> None:
    at_once = await asyncio.gather(*(run("migrate", DATABASE_URL=empty_database) for _ in range(4)))
    applied = [line for ended in at_once for line in ended.done().splitlines() if line.startswith("applied")]
    assert [line.split()[-1][:3] for line in applied] == [f"{step:03}" for step in STEPS]
    assert "applied" not in (await run("migrate", DATABASE_URL=empty_database)).done()
    async with connected(empty_database) as connection:
        assert await connection.fetchval("SELECT array_agg(version) FROM reactive_orch.schema_steps") == STEPS


async def test_migrate_says_what_it_has_done_whoever_has_locked_the_log(database: str) -> None:
    async with connected(database) as other:
        await other.execute("DELETE FROM reactive_orch.schema_steps WHERE version = $1", NEWEST)
        async with other.transaction():
            await other.execute("LOCK TABLE reactive_orch.events IN ACCESS EXCLUSIVE MODE")
            assert "applied schema step" in (await run("migrate", DATABASE_URL=database)).done()


async def test_partitions_are_a_power_of_two_chosen_once(empty_database: str) -> None:
    for number in ("0", "48", "2048", "-64"):
        line = (await run("migrate", f"--partitions={number}", DATABASE_URL=empty_database)).complaint()
        assert line == f"the number of partitions must be a power of two from 1 to 1024, not {number}"
    (await run("migrate", "--partitions", "8", DATABASE_URL=empty_database)).done()
    again = (await run("migrate", DATABASE_URL=empty_database)).done()
    assert again == f"nothing to do: the schema has step {NEWEST} already\n"
    other = await run("migrate", "--partitions", "128", DATABASE_URL=empty_database)
    assert other.complaint() == "--partitions 128: this log was created with 8, which cannot be changed"
    (await run("migrate", "--partitions", "8", DATABASE_URL=empty_database)).done()
    async with connected(empty_database) as connection:
        await append_events(connection, 200)
        rows = await connection.fetch("SELECT DISTINCT partition FROM reactive_orch.events ORDER BY 1")
        assert [row[0] for row in rows] == list(range(8))
    assert (
        (await run("status", DATABASE_URL=empty_database))
        .done()
        .startswith("no problems\nlog events: 8 partitions, last position 200")
    )


async def test_a_worker_migrates_when_asked_to(empty_database: str) -> None:
    ended = await run_worker("--migrate", url=empty_database)
    assert ended.code == 0, ended
    assert (await run_worker("--migrate", url=empty_database)).code == 0


EVENT = {"aggregate_type": "Order", "aggregate_id": "1", "event_type": "Placed"}


def lines(*events: object) -> str:
    return "".join(f"{event if isinstance(event, str) else json.dumps(event)}\n" for event in events)


async def stored(url: str) -> list[dict[str, Any]]:
    async with connected(url) as connection:
        return [
            dict(row) for row in await connection.fetch("SELECT * FROM reactive_orch.events ORDER BY global_position")
        ]


async def test_append_lines(database: str) -> None:
    event_id = "00000000-0000-4000-8000-000000000001"
    full = {
        **EVENT,
        "aggregate_id": "2",
        "bounded_context": "shop",
        "event_version": 3,
        "event_id": event_id,
        "trace_id": "t",
        "correlation_id": "co",
        "causation_id": "ca",
        "metadata": {"by": "é"},
        "payload": {"total": 9.5, "\0": "\0"},
    }
    nulls = {**EVENT, **dict.fromkeys(("bounded_context", "event_version", "event_id", "trace_id", "metadata"))}
    text = lines({**EVENT, "payload": "first"}, "", full, nulls)
    assert (await run("append", stdin=text, DATABASE_URL=database)).done() == "appended 3 events\n"
    first, second, third = await stored(database)
    assert [first[key] for key in EVENT] == ["Order", "1", "Placed"]
    assert [row["aggregate_version"] for row in (first, second, third)] == [1, 1, 2]
    assert first["payload"] == b'"first"'
    assert json.loads(second["payload"]) == full["payload"]
    assert json.loads(second["metadata"]) == {"by": "é"}
    assert [str(second[key]) for key in ("bounded_context", "event_version", "event_id", "trace_id")] == [
        *("shop", "3", event_id, "t")
    ]
    assert [third[key] for key in ("bounded_context", "event_version", "trace_id")] == ["default", 1, None]


async def test_what_is_appended_is_stored_as_given(database: str) -> None:
    given = '{"a":12345678901234567.89,"b":1.10,  "b":1e2, "c":"\\u00e9"}'
    line = f'{json.dumps(EVENT)[:-1]}, "payload": {given} , "metadata": {{"n":12345678901234567.89, "m":1.10}}}}\n'
    (await run("append", stdin=line, DATABASE_URL=database)).done()
    words = (f"--{key.replace('_', '-')}={value}" for key, value in EVENT.items())
    (await run("append", *words, "--payload", f" {given}\n", DATABASE_URL=database)).done()
    rows = await stored(database)
    assert [row["payload"] for row in rows] == [given.encode()] * 2
    assert rows[0]["metadata"] == '{"m": 1.10, "n": 12345678901234567.89}'


async def test_an_interrupt_while_append_waits_for_its_input(database: str) -> None:
    reading, writing = os.pipe()
    try:
        async with started("append", stdin=reading, DATABASE_URL=database) as process:
            os.write(writing, lines(EVENT).encode())

            async def read() -> bool:
                return fcntl.ioctl(reading, termios.FIONREAD, b"\0\0\0\0") == b"\0\0\0\0"

            await wait_until(read, what="it has read what there is")
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(TIMEOUT_S):
                _, err = await process.communicate()
            assert (process.returncode, err) == (FAILED, b"")
    finally:
        os.close(reading)
        os.close(writing)
    assert not await stored(database)


async def test_append_looks_for_its_database_before_it_reads(empty_database: str) -> None:
    reading, writing = os.pipe()
    try:
        for url, says in (
            (NOBODY_LISTENS, b"cannot be reached"),
            (empty_database, b"there is no schema reactive_orch"),
        ):
            async with started("append", stdin=reading, DATABASE_URL=url) as process, asyncio.timeout(TIMEOUT_S):
                assert says in (await process.communicate())[1]
    finally:
        os.close(reading)
        os.close(writing)


async def test_append_nothing(database: str) -> None:
    assert (await run("append", stdin="\n", DATABASE_URL=database)).done() == "appended 0 events\n"


async def test_bad_lines_are_named_and_nothing_is_written(database: str) -> None:
    bad: dict[str | bytes, str] = {
        "{": "line 2: ",
        "[1]": "line 3: an event is a JSON object, not [1]",
        '{"aggregate_type": "A", "event_type": "T"}': "line 4: aggregate_id is missing or not a non-empty string",
        json.dumps({**EVENT, "event_type": 5}): "line 5: event_type is missing or not a non-empty string",
        json.dumps({**EVENT, "aggregateId": 1}): "line 6: unknown key aggregateId; known are aggregate_id, ",
        json.dumps({**EVENT, "event_id": "no"}): "line 7: badly formed hexadecimal UUID string",
        json.dumps({**EVENT, "event_version": "1"}): "line 8: event_version must be of type int",
        json.dumps({**EVENT, "event_version": True}): "line 9: event_version must be of type int",
        json.dumps({**EVENT, "event_version": 2**31}): "line 10: event_version must be 1 to 2147483647",
        json.dumps({**EVENT, "metadata": []}): "line 11: metadata must be an object",
        json.dumps(
            {**EVENT, "metadata": {"a": ["\0"]}}
        ): "line 12: PostgreSQL's text cannot hold the character \\u0000",
        json.dumps({**EVENT, "trace_id": "\ud800"}): "line 13: ",
        json.dumps({**EVENT, "payload": float("nan")}): "line 14: NaN is not JSON",
        b'{"aggregate_id": "\xff"}': "line 15: ",
        "[" * 100_000: "line 16: ",
    }
    first = json.dumps(EVENT).encode()
    text = b"\n".join([first, *(line if isinstance(line, bytes) else line.encode() for line in bad), first, b""])
    line = (await run("append", stdin=text, DATABASE_URL=database)).complaint()
    assert line.startswith("nothing was appended; line 2: ")
    said = line.removeprefix("nothing was appended; ")
    for number, expected in enumerate(bad.values(), start=2):
        assert expected in said, (number, line)
    assert "line 1:" not in said
    assert "line 17:" not in said
    assert not await stored(database)


async def test_of_many_bad_lines_the_first_are_named(database: str) -> None:
    line = (await run("append", stdin=lines(*["x"] * 1000), DATABASE_URL=database)).complaint()
    assert "line 20: " in line
    assert line.endswith("; and 980 more")


async def test_append_one_event_at_the_expected_version(database: str) -> None:
    words = ("append", *(f"--{key.replace('_', '-')}={value}" for key, value in EVENT.items()))

    async def append_one(*more: str) -> Ended:
        return await run(*words, *more, DATABASE_URL=database)

    assert (await append_one("--payload", '{"total": 1}', "--expected=none")).done() == "appended 1 event\n"
    assert (await append_one("--expected=none")).complaint(FAILED) == "default/Order/1 is at version 1, not at 0"
    assert (await append_one("--expected=7")).complaint(FAILED) == "default/Order/1 is at version 1, not at 7"
    (await append_one("--expected=1")).done()
    (await append_one("--expected=any")).done()
    assert "--payload is not JSON: Expecting" in (await append_one("--payload", "{")).complaint()
    two = lines(EVENT, {**EVENT, "aggregate_id": "2"})
    line = (await run("append", "--expected=3", stdin=two, DATABASE_URL=database)).complaint()
    assert "an exact version is that of one aggregate, but the events belong to 2" in line
    assert [(row["aggregate_version"], row["payload"]) for row in await stored(database)] == [
        *((1, b'{"total": 1}'), (2, b"{}"), (3, b"{}"))
    ]


async def test_an_event_id_is_taken_once(database: str) -> None:
    text = lines({**EVENT, "event_id": "00000000-0000-4000-8000-000000000001"})
    (await run("append", stdin=text, DATABASE_URL=database)).done()
    line = (await run("append", stdin=text, DATABASE_URL=database)).complaint(FAILED)
    assert line == "nothing was appended; line 1: an event_id is taken"
    assert len(await stored(database)) == 1


async def test_status_shows_the_log_the_sets_and_who_holds_what(database: str) -> None:
    assert (
        "there is no replica set 'nowhere'; there is none yet"
        in (await run("status", "--replica-set", "nowhere", DATABASE_URL=database)).err
    )
    async with prepared(database) as connection, WorkerProcess(database, "w1") as worker:
        await append_events(connection, 10)
        await worker.ready()
        await wait_settled(connection)
        member = await worker.member()
        shown = (await run("status", DATABASE_URL=database)).done()
        assert "log events: 64 partitions, last position 10, settled 10" in shown
        assert re.search(
            r"replica set test: generation 1 \(join of \d+; 64 partitions moved; settled in \d+ ms\)", shown
        )
        assert re.search(rf"worker {member} \w+, connected, heartbeat \d+\.\d s ago, 64 partitions", shown)
        assert re.search(r"projection handled: running, .*; saved up to \d+ … \d+ of 10 ", shown)
        assert (await run("status", "--replica-set", "test", DATABASE_URL=database)).done()


@pytest.mark.parametrize("to", ["-1", "1.5", "beginning", "", "11", "9" * 30])
async def test_a_rewind_to_nowhere(database: str, to: str) -> None:
    async with prepared(database) as connection:
        await append_events(connection, 10)
        before = await connection.fetch("SELECT * FROM reactive_orch.checkpoints")
        line = (await _rewind(database, to=to)).complaint()
        assert line == f"--to {to}: give start, keep, a time, or a position up to 10, where the log is settled".replace(
            "  ", " "
        )
        assert await connection.fetch("SELECT * FROM reactive_orch.checkpoints") == before


async def test_a_rewind_of_what_is_not_there(database: str) -> None:
    line = (await _rewind(database, to="start")).complaint()
    assert line == "there is no replica set 'test'; there is none yet"


async def test_who_has_locked_what_a_command_reads_is_named_and_how_to_end_it(database: str) -> None:
    commands = [
        ["status"],
        ["replica-sets", "list"],
        ["dead-letters", "list", "--replica-set", "x"],
        ["watch"],
        ["trace", "--replica-set", "x"],
    ]
    async with connected(database) as locker, locker.transaction():
        for table in ("events", "projections", "failing_keys", "members", "replica_sets"):
            await locker.execute(f"LOCK TABLE reactive_orch.{table} IN ACCESS EXCLUSIVE MODE")
        pid = locker.get_server_pid()
        for ended in await asyncio.gather(*(run(*words, DATABASE_URL=database) for words in commands)):
            said = ended.complaint(FAILED)
            assert f" is locked by pid {pid} of postgres (" in said
            assert (
                f"""(4 more are locked); to end it: psql "$DATABASE_URL" -c 'SELECT pg_terminate_backend({pid})'"""
                in said
            )


async def test_a_rewind_past_an_open_writer_is_refused(database: str) -> None:
    async with prepared(database) as connection, connected(database) as writer, writer.transaction():
        await append(writer, [NewEvent(aggregate_type="Slow", aggregate_id="1", event_type="Opened")])
        await append_events(connection, 10)
        assert "a position up to 0," in (await _rewind(database, to="11")).complaint()


async def _rewind(url: str, *, to: str) -> Ended:
    return await run("rewind", "--replica-set=test", "--projection=handled", f"--to={to}", "--yes", DATABASE_URL=url)


async def test_a_worker_says_where_it_is(database: str) -> None:
    ended = await run_worker("--replica-set", "shop", url=database)
    assert (ended.code, ended.out) == (0, "")
    for says in (
        f"database {database}",
        "replica set shop, projections event_counts",
        "health http://127.0.0.1:",
        "worker 1 took 64, gave 0, kept 0 partitions, holds 64",
    ):
        assert says in ended.err


async def test_the_demo_joins_no_projections_of_others(database: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from reactive_orch import projection\n@projection('mine')\nasync def mine(event, tx): ...\n"
    )
    shop = ("--replica-set", "shop")
    assert (await run_worker(*shop, "--projection", "mine", url=database, cwd=tmp_path)).code == 0
    refused = (await run_worker(*shop, url=database)).complaint()
    assert refused.startswith("replica set shop has projections already (mine): say what to run by --projection")
    async with connected(database) as connection:
        assert await connection.fetchval("SELECT array_agg(name) FROM reactive_orch.projections") == ["mine"]
    other = await run_worker("--replica-set", "other", url=database)
    assert other.code == 0
    assert "no --projection says what to run: this is the demo" in other.err


async def _get(url: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.content_type == "application/json"
        return response.status, await response.json()


async def _statuses(worker: WorkerProcess) -> list[int]:
    assert worker.health_url is not None
    base = worker.health_url.removesuffix("/healthz")
    return [(await _get(f"{base}/{page}"))[0] for page in ("livez", "readyz", "healthz")]


async def test_health_while_serving_standing_by_and_without_a_database(database: str, cluster: Cluster) -> None:
    async with (
        prepared(database) as connection,
        WorkerProcess(database, "w1") as worker,
    ):
        await worker.ready()
        assert await _statuses(worker) == [200, 200, 200]
        await append_events(connection, 10)

        async def handled() -> bool:
            return bool((await worker.health())["events_handled"] == {"handled": 10})

        await wait_until(handled, what="health tells of ten events")
        body = await worker.health()
        assert (body["status"], body["replica_set"], body["generation"]) == ("serving", "test", 1)
        assert (body["partitions"], body["settled_position"]) == ({"handled": 64}, 10)
        assert body["worker"] == await connection.fetchval("SELECT id FROM reactive_orch.members")
        cluster.stop()
        try:

            async def unwell() -> bool:
                return await _statuses(worker) == [200, 503, 503]

            await wait_until(unwell, what="health is 503 without a database, and the process still alive")

            async def named() -> bool:
                return bool((await worker.health())["status"] == "database unavailable")

            await wait_until(named, what="health says why")
        finally:
            cluster.start()
        await worker.ready()
        await worker.stop()


async def test_a_worker_more_than_partitions_stands_by_and_is_well(empty_database: str) -> None:
    (await run("migrate", "--partitions=1", DATABASE_URL=empty_database)).done()
    async with (
        prepared(empty_database),
        WorkerProcess(empty_database, "w1") as one,
        WorkerProcess(empty_database, "w2") as two,
    ):
        await asyncio.gather(one.ready(), two.ready())

        async def divided() -> bool:
            bodies = [await worker.health() for worker in (one, two)]
            return sorted(body["status"] for body in bodies) == ["serving", "standby"]

        await wait_until(divided, what="one serves, the other stands by")
        assert await _statuses(one) == await _statuses(two) == [200, 200, 200]


async def test_the_next_free_port_when_the_usual_one_is_taken(database: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        usual = taken.getsockname()[1]
        # Not 8080: that is everybody's, on this machine too.
        (tmp_path / "sitecustomize.py").write_text(
            f"from reactive_orch.http import server\nserver.PORT_DEFAULT = {usual}\n"
        )
        path = f"{tmp_path}:{ROOT}"
        async with (
            started("--replica-set", "test", DATABASE_URL=database, PYTHONPATH=path) as one,
            started("--replica-set", "test", DATABASE_URL=database, PYTHONPATH=path) as two,
        ):
            urls = [await _health_url(process) for process in (one, two)]
            ports = {urlsplit(url).port for url in urls}
            assert len(ports) == 2
            assert all(port is not None and usual < port < usual + server.PORTS_TRIED for port in ports)
            for url in urls:

                async def well(url: str = url) -> bool:
                    return (await _get(url))[0] == 200

                await wait_until(well, what=f"{url} is well")
            for process in (one, two):
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(TIMEOUT_S):
                    assert await process.wait() == 0


def test_the_usual_port_is_8080() -> None:
    assert server.PORT_DEFAULT == 8080


async def _health_url(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(TIMEOUT_S):
        async for line in process.stderr:
            if found := re.search(rb"health (http://[^\s\"]+)", line):
                return found[1].decode()
    msg = "it ended without saying where its health is"
    raise AssertionError(msg)
