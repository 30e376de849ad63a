"""The blocks of the README and of the documentation's pages are whole, and do what is said of them.

Which are run here or by another test, and which are not and why, `tests/contracts/test_pages.py` knows.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from integration_test.harness import pages
from integration_test.harness.command_line import environment
from integration_test.harness.pages import README, the
from integration_test.harness.processes import ROOT, Process
from integration_test.harness.waiting import wait_until
from reactive_orch import cli

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.connections import Connection

APPENDING = "docs/appending.md"
APPLICATION = "docs/application.md"
COMMANDS = "docs/reference/commands.md"
FAILURES = "docs/failures.md"
MIGRATION = "docs/migration.md"
OPERATIONS = "docs/operations.md"
PROJECTIONS = "docs/projections.md"
QUICKSTART = "docs/quickstart.md"
SEEING = "docs/seeing.md"
SHARED_ROWS = "docs/shared-rows.md"
SQLALCHEMY = "docs/sqlalchemy.md"
TROUBLESHOOTING = "docs/troubleshooting.md"

DOCTOR_MAY_WARN = " || [ $? -eq 1 ]"
UNTIL_IDLE = " --http 127.0.0.1:0 --until-idle"
ORDER = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload) "
    "VALUES ('Order', '4714', 1, 'OrderShipped', '{}')"
)


async def test_python_blocks_have_all_that_they_need() -> None:
    found = [each for each in pages.blocks() if each.language == "python"]
    assert len(found) >= 9
    for each in found:
        ruff = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await ruff.communicate(each.text.encode())
        assert ruff.returncode == 0, said.decode() + each.text


def _commands() -> list[str]:
    lines = "".join(each.commands for each in pages.blocks()).replace("\\\n", " ").splitlines()
    begun = [line.removeprefix(".venv/bin/") for line in lines]
    commands = [line for line in begun if re.match(r"python -m reactive_orch |(pip|docker|make|curl|export) ", line)]
    return [line for line in commands if "…" not in line]


async def test_shell_blocks_are_what_a_shell_and_the_command_take() -> None:
    assert len(_commands()) > 50
    bash = await asyncio.create_subprocess_exec("bash", "-n", "-c", "\n".join(_commands()))
    assert await bash.wait() == 0, "it has said which line"
    for line in _commands():
        words = shlex.split(re.split(r" \| | < ", line)[0], comments=True)
        if words[0] == "python":
            cli._parse(words[3:])  # noqa: SLF001 - the very parser that will read them


def test_the_readme_has_the_commands_of_the_first_five_minutes() -> None:
    first = {line for each in pages.blocks(QUICKSTART) for line in _lines(each.commands)}
    assert {*_lines(the("make run\n")), *_lines(the("OrderPlaced --aggregate-type Order"))} <= first


def _lines(commands: str) -> list[str]:
    return re.sub(r"( |\\\n)+", " ", commands).splitlines()


async def _run(folder: Path, url: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        cwd=folder,
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the blocks in files of their own."""
    (tmp_path / "shop").mkdir()
    files = {
        "shop/projections.py": the('@projection("balances"', PROJECTIONS),
        "mails.py": the('@projection("mails", timeout=5', PROJECTIONS),
        "models.py": the('group="read-models"', PROJECTIONS),
        "orders.py": the('@projection("order_status"', README).replace('"order_status"', '"orders"'),
        "pay.py": the('asyncio.run(pay("4713"))', APPENDING),
        "basket.py": the("INSERT INTO baskets", APPENDING),
        "place.py": the("await handled(connection", APPENDING),
        "workers.py": the("asyncio.run(main())", APPLICATION),
        "again.py": the("asyncio.run(retry())", APPLICATION),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


async def test_python_blocks_do_their_work(database: str, project: Path) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(the("CREATE TABLE balances", PROJECTIONS) + "CREATE TABLE mails (order_id text)")
    await connection.execute("CREATE TABLE last_events (order_id text PRIMARY KEY, kind text)")
    await connection.execute("CREATE TABLE event_counts (kind text PRIMARY KEY, events bigint)")
    await connection.execute("CREATE TABLE orders (id text, status text); INSERT INTO orders VALUES ('4713')")
    await connection.execute(the("VALUES ('Order', '4712'", APPENDING))
    await _run(project, database, "pay.py")
    worker = the("--projection shop.projections", PROJECTIONS).rstrip() + UNTIL_IDLE
    await _shell(project, database, f"{worker} --projection mails --projection orders --projection models")
    orders = await connection.fetch("SELECT order_id, status FROM order_status ORDER BY 1")
    assert [tuple(row) for row in orders] == [("4712", "OrderPlaced"), ("4713", "OrderPaid")]
    assert await connection.fetchval("SELECT total FROM balances") == 80
    assert await connection.fetchval("SELECT count(*) FROM search_index") == 2
    assert await connection.fetchval("SELECT count(*) FROM mails") == 2
    assert await connection.fetchval("SELECT count(*) FROM last_events") == 2
    assert await connection.fetchval("SELECT sum(events) FROM event_counts") == 2
    assert await connection.fetchval("SELECT status FROM orders") == "OrderPaid"
    assert await _run(project, database, "again.py") == "0 keys tried, 0 have failed again\n"

    command = ["env", "-C", str(project), f"PYTHONPATH={ROOT}", sys.executable, "workers.py"]
    process = await Process("workers", command, {"DATABASE_URL": database}).start()
    try:
        await connection.execute(ORDER)

        async def handled() -> object:
            return await connection.fetchval("SELECT count(*) = 1 FROM order_status WHERE order_id = '4714'")

        await wait_until(handled)
        await process.said("INFO:reactive_orch")
        assert await _run(project, database, "place.py") == "OrderPlaced\n"
        await _run(project, database, "basket.py")
        assert (
            await connection.fetchval("SELECT count(*) FROM reactive_orch.events WHERE aggregate_type = 'Basket'") == 1
        )
        process.send(signal.SIGINT)
        assert await process.wait() == 0
        assert "Traceback" not in process.tail()
    finally:
        await process.end()
        await connection.close()


# Commands, as somebody at a prompt gives them.


async def _shell(folder: Path, url: str, commands: str, code: int = 0) -> str:
    """Run them until one fails; return all that they have said."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    process = await asyncio.create_subprocess_exec(
        *("bash", "-e", "-c", commands.replace(".venv/bin/python", "python")),
        cwd=folder,
        env=environment({"DATABASE_URL": url, "PATH": path}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == code, said.decode()
    return said.decode()


def _typed(words: str, page: str) -> str:
    """Return what is typed of a block that shows a prompt."""
    return pages.Block(page, "console", the(words, page)).commands


def _write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)


@pytest.fixture
async def log(database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database)
    yield connection
    await connection.close()


STATUS = """
from reactive_orch import projection


@projection("order_status")
async def order_status(event, tx):
    {code}
"""


async def test_a_key_fails_and_is_handled_after_all(database: str, log: Connection, tmp_path: Path) -> None:
    await log.execute(ORDER.replace("4714", "4711"))
    _write(tmp_path, "shop/projections.py", STATUS.format(code="event.json()['customer']"))
    worker = "python -m reactive_orch --replica-set shop --projection shop.projections --retries 0"
    await _shell(tmp_path, database, worker + UNTIL_IDLE)
    letters = the("dead-letters list", TROUBLESHOOTING) + _typed("dead-letters show", FAILURES).partition("\n")[2]
    said = await _shell(tmp_path, database, letters)
    assert said.count("KeyError: 'customer'") == 2 * 3
    assert said.count("python -m reactive_orch dead-letters retry") == 2

    _write(tmp_path, "shop/projections.py", STATUS.format(code="pass"))
    command = [
        "env",
        "-C",
        str(tmp_path),
        f"PYTHONPATH={ROOT}",
        *shlex.split(worker.replace("python", sys.executable, 1)),
    ]
    process = await Process("worker", [*command, "--http", "127.0.0.1:0"], {"DATABASE_URL": database}).start()
    try:
        await process.said("adopted")
        said = await _shell(tmp_path, database, _typed("--wait", FAILURES))
        assert said.endswith("done\nno failing keys\n")
        await _shell(tmp_path, database, the("resume --replica-set shop", FAILURES))
        assert not json.loads(await _shell(tmp_path, database, "python -m reactive_orch status --json"))["problems"]
    finally:
        await process.end()


async def test_a_projection_is_rewound_and_forgotten(database: str, log: Connection, tmp_path: Path) -> None:
    _write(tmp_path, "shop/projections.py", the("async def empty", OPERATIONS))
    line = json.dumps({"aggregate_type": "Order", "aggregate_id": "4712", "event_type": "OrderPaid"})
    _write(tmp_path, "events.jsonl", f"{line}\n{line}\n")
    await log.execute("CREATE TABLE totals (order_id text)")
    await _shell(
        tmp_path, database, the("OrderPlaced --aggregate-type Order") + the("append < events.jsonl", APPENDING)
    )
    await _shell(tmp_path, database, the("--projection shop.projections").rstrip() + UNTIL_IDLE)
    assert await log.fetchval("SELECT count(*) FROM totals") == 3

    second = await log.fetchval("SELECT created_at FROM reactive_orch.events ORDER BY global_position OFFSET 1 LIMIT 1")
    since = _typed("--dry-run", OPERATIONS).replace("2026-11-28T22:00", second.isoformat())
    said = await _shell(tmp_path, database, since)
    assert "2 events handled again" in said
    assert said.endswith("nothing was done: --dry-run\n")
    await _shell(tmp_path, database, _typed("--load shop.projections", OPERATIONS).rstrip() + " --yes")
    assert await log.fetchval("SELECT count(*) FROM totals") == 0

    named = {"--projection NAME": "--projection totals", "--replica-set NAME": "--replica-set orders"}
    for command in (
        the("mail server down", OPERATIONS),
        _typed("trace 4", SEEING).replace("trace 4", "trace 1"),
        the("replica-sets remove", OPERATIONS).rstrip() + " --yes",
    ):
        for placeholder, name in named.items():
            command = command.replace(placeholder, name)  # noqa: PLW2901 - as a reader does
        await _shell(tmp_path, database, command)
    assert await log.fetchval("SELECT count(*) FROM reactive_orch.checkpoints") == 0


async def test_an_own_server_is_made_ready_and_looked_at(empty_database: str, tmp_path: Path) -> None:
    address = "postgresql://user:password@host:5432/shop"
    await _shell(tmp_path, "", the("export DATABASE_URL", QUICKSTART).replace(address, f"'{empty_database}'"))
    said = await _shell(
        tmp_path, empty_database, the("reactive_orch doctor", TROUBLESHOOTING).rstrip() + DOCTOR_MAY_WARN
    )
    assert "looked at database" in said


async def test_sql_of_the_pages_is_what_the_server_takes(log: Connection) -> None:
    asked = (
        the("l.classid", OPERATIONS),
        the("least(min(c.position)", OPERATIONS),
        the("<= 40000", OPERATIONS),
        the("'Customer'", OPERATIONS),
        the("pg_stat_activity GROUP BY", OPERATIONS),
        the("k.state", OPERATIONS),
    )
    for sql in asked:
        await log.execute(sql)
    async with log.transaction():
        await log.execute("CREATE ROLE worker")
        await log.execute(the("GRANT SET ON PARAMETER", SHARED_ROWS))
        await log.execute("DROP OWNED BY worker; DROP ROLE worker")


async def test_shared_rows_are_written_sorted(database: str, log: Connection, tmp_path: Path) -> None:
    _write(tmp_path, "shop/projections.py", the("sorted(Counter(", SHARED_ROWS))
    await log.execute("CREATE TABLE totals (product text PRIMARY KEY, events bigint NOT NULL)")
    for number, product in enumerate(["pen", "ink", "pen"]):
        await log.execute(ORDER.replace("4714", str(number)).replace("{}", json.dumps({"product": product})))
    worker = "python -m reactive_orch --replica-set shop --projection shop.projections"
    await _shell(tmp_path, database, worker + UNTIL_IDLE)
    totals = await log.fetch("SELECT product, events FROM totals ORDER BY 1")
    assert [tuple(row) for row in totals] == [("ink", 1), ("pen", 2)]


async def test_sessions_write_and_another_driver_takes_over(database: str, log: Connection, tmp_path: Path) -> None:
    _write(tmp_path, "shop/read_model.py", the("async with session(tx) as s:", SQLALCHEMY))
    _write(tmp_path, "shop/invoices.py", the('@projection("invoices"', SQLALCHEMY))
    _write(tmp_path, "write_invoices.py", the("import psycopg", SQLALCHEMY))
    await log.execute(the("CREATE TABLE invoices_to_write", SQLALCHEMY))
    await log.execute("CREATE TABLE orders (id text PRIMARY KEY, status text NOT NULL, changes bigint NOT NULL)")
    await log.execute(ORDER.replace("4714", "1").replace("OrderShipped", "OrderPlaced"))
    await log.execute(ORDER.replace("4714", "1").replace("1, 'Ord", "2, 'Ord"))
    worker = "python -m reactive_orch --replica-set shop --projection shop.read_model --projection shop.invoices"
    await _shell(tmp_path, database, worker + UNTIL_IDLE)
    assert [row["status"] for row in await log.fetch("SELECT status FROM orders")] == ["OrderShipped"]
    assert await log.fetchval("SELECT count(*) FROM reactive_orch.failing_keys") == 0
    await _run(tmp_path, database, "write_invoices.py")
    _write(tmp_path, "place.py", the("async def place(session: AsyncSession", SQLALCHEMY))
    words = [sys.executable, *shlex.split(worker)[1:], "--http", "127.0.0.1:0"]
    command = ["env", "-C", str(tmp_path), f"PYTHONPATH={ROOT}", *words]
    process = await Process("serving", command, {"DATABASE_URL": database}).start()
    try:
        assert await _run(tmp_path, database, "place.py") == "OrderPlaced\n"
    finally:
        await process.end()
    assert await log.fetchval("SELECT count(*) FROM invoices_to_write") == 0
    assert await log.fetchval("SELECT order_id FROM invoices") == "1"


async def test_a_plain_function_reads_a_file(database: str, log: Connection, tmp_path: Path) -> None:
    _write(tmp_path, "shop/labels.py", the('@projection("labels"', PROJECTIONS))
    _write(tmp_path, "streets.json", '{"4714": "Elm Street"}')
    await log.execute("CREATE TABLE labels (order_id text, street text)")
    await log.execute(ORDER)
    worker = "python -m reactive_orch --replica-set shop --projection shop.labels"
    await _shell(tmp_path, database, worker + UNTIL_IDLE)
    assert await log.fetchval("SELECT street FROM labels") == "Elm Street"
    found = await log.fetchval("SELECT payload FROM reactive_orch.events WHERE event_type = 'LabelPrinted'")
    assert found == b"1"


async def test_polling_workers_are_replaced_while_they_run(empty_database: str, tmp_path: Path) -> None:
    polls, copies = the("SKIP LOCKED", MIGRATION), the("CREATE FUNCTION outbox_to_log", MIGRATION)
    place = "INSERT INTO outbox (order_id, kind, body) VALUES ($1, 'OrderPlaced', '{}')"
    connection = await asyncpg.connect(empty_database)
    await connection.execute(
        the("CREATE TABLE outbox", MIGRATION) + "CREATE TABLE mails_to_send (order_id text, kind text)"
    )
    await connection.execute(place, "1")
    assert [row["order_id"] for row in await connection.fetch(polls)] == ["1"]
    await connection.execute(place, "2")
    await _shell(tmp_path, empty_database, the("reactive_orch migrate", MIGRATION).rstrip() + DOCTOR_MAY_WARN)
    await connection.execute(copies)
    for order in ("3", "4"):
        await connection.execute(place, order)
    had = await connection.fetch(polls.replace("LIMIT 100", "LIMIT 2"))

    _write(tmp_path, "shop/mails.py", the("order_mails", MIGRATION))
    starts, _, looks = the("--replica-set mails", MIGRATION).partition("\n")
    await _shell(tmp_path, empty_database, f"{starts}{UNTIL_IDLE}\n{looks}")
    assert [row["order_id"] for row in had] == ["2", "3"]
    assert [row["order_id"] for row in await connection.fetch("SELECT order_id FROM mails_to_send")] == ["4"]
    assert await connection.fetchval(the("left_over", MIGRATION)) == 0
    assert await connection.fetch(polls) == []
    await connection.close()
