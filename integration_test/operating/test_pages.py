"""The snippets of the README are whole, and do what it says."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
from typing import TYPE_CHECKING

import asyncpg
import pytest

from integration_test.harness import readme
from integration_test.harness.processes import ROOT, Process
from integration_test.harness.waiting import wait_until
from reactive_orch import cli

if TYPE_CHECKING:
    from pathlib import Path

ORDER = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload) "
    "VALUES ('Order', '4714', 1, 'OrderShipped', '{}')"
)


async def test_python_snippets_have_all_that_they_need() -> None:
    found = readme.python()
    assert len(found) == 5
    for each in found:
        ruff = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ruff", "check", "--isolated", "--select", "E9,F", "-"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        said, _ = await ruff.communicate(each.encode())
        assert ruff.returncode == 0, said.decode() + each


def _commands() -> list[str]:
    lines = "".join(readme.snippets()).replace("\\\n", " ").splitlines()
    begun = [line.removeprefix("$ ").removeprefix(".venv/bin/") for line in lines]
    commands = [line for line in begun if re.match(r"python -m reactive_orch |(pip|docker|make|curl|export) ", line)]
    return [line for line in commands if "…" not in line and "NAME [" not in line]


async def test_shell_snippets_are_what_a_shell_and_the_command_take() -> None:
    assert len(_commands()) > 30
    bash = await asyncio.create_subprocess_exec("bash", "-n", "-c", "\n".join(_commands()))
    assert await bash.wait() == 0, "it has said which line"
    for line in _commands():
        words = shlex.split(re.split(r" \| | < ", line)[0], comments=True)
        if words[0] == "python":
            cli._parse(words[3:])  # noqa: SLF001 - the very parser that will read them


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
    """A folder with the snippets in files of their own."""
    (tmp_path / "shop").mkdir()
    files = {
        "shop/projections.py": '@projection("balances"',
        "mails.py": '@projection("mails", timeout=5',
        "pay.py": 'asyncio.run(pay("4713"))',
        "workers.py": "anyio.run(main)",
        "again.py": "asyncio.run(retry())",
    }
    for name, words in files.items():
        (tmp_path / name).write_text(readme.the(words))
    assert len(files) == len(readme.python())
    return tmp_path


async def test_python_snippets_do_their_work(database: str, project: Path) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(readme.the("CREATE TABLE balances") + "CREATE TABLE mails (order_id text)")
    await connection.execute(readme.the("VALUES ('Order', '4712'"))
    await _run(project, database, "pay.py")
    worker = ("-m", "reactive_orch", "--replica-set", "shop", "--http", "127.0.0.1:0", "--until-idle")
    await _run(project, database, *worker, "--projection", "shop.projections", "--projection", "mails")
    orders = await connection.fetch("SELECT order_id, status FROM order_status ORDER BY 1")
    assert [tuple(row) for row in orders] == [("4712", "OrderPlaced"), ("4713", "OrderPaid")]
    assert await connection.fetchval("SELECT total FROM balances") == 80
    assert await connection.fetchval("SELECT count(*) FROM search_index") == 2
    assert await connection.fetchval("SELECT count(*) FROM mails") == 2
    assert await _run(project, database, "again.py") == "0 keys tried, 0 have failed again\n"

    command = ["env", "-C", str(project), f"PYTHONPATH={ROOT}", sys.executable, "workers.py"]
    process = await Process("workers", command, {"DATABASE_URL": database}).start()
    try:
        await connection.execute(ORDER)

        async def handled() -> object:
            return await connection.fetchval("SELECT count(*) = 1 FROM order_status WHERE order_id = '4714'")

        await wait_until(handled)
        await process.said("INFO:reactive_orch")
        process.send(signal.SIGINT)
        assert await process.wait() == 0
        assert "Traceback" not in process.tail()
    finally:
        await process.end()
        await connection.close()
