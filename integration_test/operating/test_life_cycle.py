"""Workers in applications as people write them: they begin and end with it, and end it if they fail."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from integration_test.harness.cases import thorough
from integration_test.harness.in_process import event
from integration_test.harness.pages import the
from integration_test.harness.processes import ACCIDENT, ROOT, Process
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, ConfigError, Hooks, Node, Unavailable, Worker, append, projection, running
from reactive_orch.http.routes import health_routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from integration_test.harness.connections import Connection
    from reactive_orch import Event

APPLICATION = "docs/application.md"
PROJECTIONS = """
import asyncio
from reactive_orch import projection

@projection("order_status")
async def order_status(event, tx):
    print("began", event.aggregate_id, flush=True)
    await asyncio.sleep(float(event.json().get("takes", 0)))
    await tx.execute("INSERT INTO done VALUES ($1)", event.aggregate_id)

@projection("search_index")
async def search_index(event, tx): ...
"""
TRACED = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
import logging
import web

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: f"span {span.name}\\n")))
trace.set_tracer_provider(provider)

@web.app.get("/mine")
async def mine():
    logger = logging.getLogger("reactive_orch")
    return [logger.handlers == [], logger.level, trace.get_tracer_provider() is provider, len(logging.root.handlers)]

app = web.app
"""
UVLOOP = "uvloop==0.23.0"
LEFT = "SELECT count(*) = 0 FROM reactive_orch.members"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The pages' blocks in files, and projections for them."""
    (tmp_path / "shop").mkdir()
    files = {
        "shop/projections.py": PROJECTIONS,
        "main.py": the("asyncio.run(main())", APPLICATION),
        "web.py": the("app = FastAPI(lifespan=lifespan)", APPLICATION),
        "shop_site.py": the("app.cleanup_ctx.append(handling)", APPLICATION),
        "traced.py": TRACED,
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
async def log(database: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE done (id text)")
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def started(folder: Path, url: str, *words: str, **env: str) -> AsyncIterator[Process]:
    path = os.pathsep.join([str(folder), str(ROOT), env.pop("also", "")])
    process = Process("app", [sys.executable, *words], {"DATABASE_URL": url, "PYTHONPATH": path, **env}, folder)
    try:
        yield await process.start()
    finally:
        await process.end()


def uvicorn(app: str = "web:app") -> tuple[str, ...]:
    return "-m", "uvicorn", app, "--port", "0"


async def order(connection: Connection, key: str, takes: float = 0) -> None:
    await append(connection, [event(key, payload=f'{{"takes": {takes}}}'.encode())])


async def handled(connection: Connection, *keys: str) -> None:
    async def done() -> bool:
        return {row[0] for row in await connection.fetch("SELECT id FROM done")} == set(keys)

    await wait_until(done)


async def page(base: str, path: str, method: str = "GET") -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.request(method, f"{base}/{path}") as response:
        return response.status, await response.text()


async def ready(base: str) -> None:
    async def is_so() -> bool:
        return (await page(base, "internal/readyz"))[0] == 200

    await wait_until(is_so)


async def test_fastapi_ends_with_its_batches(database: str, log: Connection, folder: Path) -> None:
    """And its server has the pages; spans and lines go where the application says."""
    async with started(folder, database, *uvicorn("traced:app")) as process:
        base = (await process.said(r"http://[\d.:]+"))[0]
        await ready(base)
        status, text = await page(base, "internal/healthz")
        assert (status, text.count('"replica_set"'), '"health": "ok"' in text) == (200, 2, True)
        assert 'replica_set="search"' in (await page(base, "internal/metrics"))[1]
        assert await page(base, "internal/healthz", "HEAD") == (200, "")
        assert (await page(base, "internal/healthz", "POST"))[0] == 405
        assert (await page(base, "internal/other"))[0] == 404
        assert (await page(base, "mine"))[1] == "[true,0,true,0]"
        await order(log, "slow", takes=0.5)
        await process.said("began slow")
        process.send(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM, "as uvicorn ends"
    await handled(log, "slow")
    assert await log.fetchval(LEFT)
    assert re.search("span process", process.tail())
    assert "Application shutdown complete" in process.tail()
    assert not re.search(ACCIDENT, process.tail())


async def test_fastapi_outlives_its_connections(database: str, log: Connection, folder: Path) -> None:
    async with started(folder, database, *uvicorn()) as process:
        base = (await process.said(r"http://[\d.:]+"))[0]
        await ready(base)
        await log.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'reactive_orch:%'"
        )
        await order(log, "after")
        await handled(log, "after")
        await ready(base)
        process.send(signal.SIGINT)
        await process.wait()
    assert await log.fetchval(LEFT)
    assert not re.search(ACCIDENT, process.tail())


@pytest.mark.parametrize(
    ("words", "ends"),
    [
        pytest.param(uvicorn(), (-signal.SIGTERM, "Application shutdown failed. Exiting."), id="uvicorn"),
        pytest.param(("shop_site.py",), (1, "ConfigError"), id="aiohttp"),
        pytest.param(("main.py",), (1, "ConfigError"), id="main"),
    ],
)
async def test_a_worker_that_fails_for_good_ends_it(
    database: str, log: Connection, folder: Path, words: tuple[str, ...], ends: tuple[int, str]
) -> None:
    async with started(folder, database, *words, PORT="0") as process:
        await order(log, "first")
        await handled(log, "first")
        await log.execute("DELETE FROM reactive_orch.checkpoints WHERE replica_set = 'orders'")
        await order(log, "second")
        assert await process.wait() == ends[0]
    assert "the worker of orders has failed for good, and its application is to end: " in process.tail()
    assert ends[1] in process.tail()
    assert await log.fetchval(LEFT), "the other worker has left in good order, too"


async def test_aiohttp_stops_in_good_order(database: str, log: Connection, folder: Path) -> None:
    async with started(folder, database, "shop_site.py", PORT="0") as process:
        await order(log, "slow", takes=0.5)
        await process.said("began slow")
        process.send(signal.SIGTERM)
        assert await process.wait() == 0
    await handled(log, "slow")
    assert await log.fetchval(LEFT)


@pytest.fixture(scope="session")
def uvloop_folder() -> str:
    """A folder of its own that has uvloop: the command line would use it, were it installed."""
    target = ROOT / ".bench" / "uvloop"
    if not target.exists():
        words = (
            "uv",
            "pip",
            "install",
            "--quiet",
            "--target",
            str(target),
            "--python",
            sys.executable,
            UVLOOP,
        )
        done = subprocess.run([sys.executable, "-m", *words], check=False, capture_output=True)
        if done.returncode:
            pytest.skip("uvloop cannot be had here")
    return str(target)


MAIN_ON_UVLOOP = ("-c", "import uvloop; asyncio = uvloop; exec(open('main.py').read())")


@pytest.mark.parametrize("words", [pytest.param(uvicorn(), id="uvicorn"), thorough(MAIN_ON_UVLOOP)])
async def test_on_uvloop(
    database: str, log: Connection, folder: Path, uvloop_folder: str, words: tuple[str, ...]
) -> None:
    (folder / "main.py").write_text(the("asyncio.run(main())", APPLICATION).replace("import asyncio\n", ""))
    async with started(folder, database, *words, also=uvloop_folder) as process:
        await order(log, "slow", takes=0.5)
        await process.said("began slow")
        assert "uvloop" in await anyio.Path(f"/proc/{process.pid}/maps").read_text()
        process.send(signal.SIGTERM)
        await process.wait()
    await handled(log, "slow")
    assert await log.fetchval(LEFT)
    assert not re.search(ACCIDENT, process.tail())


# In the test's own process.


@projection("handled")
async def nothing(_event: Event, _tx: Connection) -> None: ...


@pytest.fixture
def unheeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing heeds SIGTERM: the tests' own process does."""
    monkeypatch.setattr(signal, "getsignal", lambda _number: signal.SIG_DFL)


async def _break(connection: Connection, worker: Worker) -> None:
    async def member() -> bool:
        return any(worker.partitions.values())

    await wait_until(member)
    await connection.execute("DELETE FROM reactive_orch.checkpoints")
    await append(connection, [event("k")])


@pytest.mark.usefixtures("unheeded")
async def test_who_waits_in_the_block_learns_of_it(database: str, log: Connection) -> None:
    worker = Worker(Node(Config(database_url=database)), "test", [nothing])

    async def wait() -> None:
        async with running(worker):
            await _break(log, worker)
            await anyio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await wait()
    assert caught.group_contains(ConfigError)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    assert not worker.node.entered


@pytest.mark.usefixtures("unheeded")
async def test_one_that_fails_as_soon_as_it_begins_is_learnt_of(database: str) -> None:
    worker = Worker(Node(Config(database_url=database)), "test", [nothing])
    with pytest.raises(ConfigError, match="a worker runs once"):
        async with running(worker, worker):
            await anyio.sleep_forever()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()
    assert not worker.node.entered


class Exiting(Hooks):
    def took(self, _subject: object, _partitions: object) -> None:
        sys.exit(3)


@pytest.mark.usefixtures("unheeded")
async def test_a_hook_that_exits_ends_the_application(database: str, log: Connection) -> None:
    await append(log, [event("k")])
    with pytest.raises(BaseExceptionGroup) as caught:
        async with running(Worker(Node(Config(database_url=database)), "test", [nothing], hooks=[Exiting()])):
            await anyio.sleep_forever()
    assert caught.group_contains(SystemExit)
    assert await log.fetchval(LEFT)


@pytest.mark.usefixtures("unheeded")
async def test_a_block_is_left_in_another_task_than_it_was_entered_in(database: str, log: Connection) -> None:
    """As fixtures and test clients do."""
    worker = Worker(Node(Config(database_url=database)), "test", [nothing])
    app = web.Application()
    app.add_routes(health_routes(worker))

    async def handling(_app: web.Application) -> AsyncIterator[None]:
        async with running(worker):
            yield

    app.cleanup_ctx.append(handling)
    client = TestClient(TestServer(app))
    await asyncio.create_task(client.start_server())

    async def well() -> bool:
        return (await client.get("/readyz")).status == 200

    await wait_until(well)
    await asyncio.create_task(client.close())
    assert await log.fetchval(LEFT)


async def test_two_nodes_and_several_replica_sets(database: str, log: Connection) -> None:
    seen: list[str] = []

    def of(name: str) -> Any:
        @projection(name)
        async def noting(_event: Event, _tx: Connection) -> None:
            seen.append(name)

        return noting

    first, second = (Node(Config(database_url=database)) for _ in range(2))
    async with running(Worker(first, "a", [of("a")]), Worker(first, "b", [of("b")]), Worker(second, "c", [of("c")])):
        await append(log, [event("k")])

        async def all_have() -> bool:
            return sorted(seen) == ["a", "b", "c"]

        await wait_until(all_have)
    assert not first.entered
    assert not second.entered


async def test_what_the_block_raises_comes_out_of_it(database: str) -> None:
    async with Node(Config(database_url=database)) as node:
        with pytest.raises(ZeroDivisionError):
            async with running(Worker(node, "test", [nothing])):
                raise ZeroDivisionError
        assert node.entered, "it was entered before"


async def test_a_database_that_is_not_there_is_said_at_once() -> None:
    node = Node(Config(database_url="postgresql://nobody@127.0.0.1:1/none"))
    with pytest.raises(Unavailable):
        async with running(Worker(node, "test", [nothing])):
            raise AssertionError


async def test_a_second_cancellation_hurries_it(database: str, log: Connection) -> None:
    begun = asyncio.Event()

    @projection("handled")
    async def stuck(_event: Event, _tx: Connection) -> None:
        begun.set()
        await anyio.sleep_forever()

    worker = Worker(Node(Config(database_url=database)), "test", [stuck])

    async def serve() -> None:
        async with running(worker):
            await anyio.sleep_forever()

    await append(log, [event("k")])
    task = asyncio.create_task(serve())
    await begun.wait()
    task.cancel()

    async def leaves() -> bool:
        return worker.member is None

    await wait_until(leaves)
    assert not task.done(), "it waits for the batch"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await log.fetchval(LEFT)


def test_not_on_trio() -> None:
    """Whoever drives a coroutine without an event loop of asyncio is as good as trio, which is not installed."""
    node = Node(Config(database_url="postgresql://nobody@127.0.0.1:1/none"))
    for entering in (node.__aenter__(), running(Worker(node, "test", [nothing])).__aenter__()):
        with pytest.raises(ConfigError, match="not on trio"):
            entering.send(None)
