"""Connections that have died without a word, while others of the same process live."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import anyio

from integration_test.harness.checkers import assert_each_once, wait_handled, wait_settled
from integration_test.harness.connections import connected, prepared
from integration_test.harness.health import running
from integration_test.harness.load import append_events
from integration_test.harness.projections import recorder
from integration_test.harness.proxy import CHUNK, Proxy
from integration_test.harness.waiting import wait_until
from reactive_orch import Config, Event, Node, Worker, projection
from reactive_orch.postgres import checkpoints, windows
from reactive_orch.postgres.connection import marks_of
from reactive_orch.postgres.database import STATEMENT_TIMEOUT_S, Database
from reactive_orch.runtime.membership import session

if TYPE_CHECKING:
    import pytest

    from reactive_orch.postgres.connection import BatchConnection

EVENTS = 20

SHORT_BYTES = 1200
"""A login has less."""


async def test_silent_work_connections_are_given_up(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy's kernel answers for it, so no keepalive sees this; the handler's time-out is a minute."""
    monkeypatch.setattr(windows, "READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(checkpoints, "STATEMENT_TIMEOUT_S", 0.5)
    handled: list[int] = []

    @projection("follow")
    async def follow(event: Event, tx: object) -> None:  # noqa: ARG001
        handled.append(event.global_position)

    async def all_committed() -> bool:
        """A COMMIT on a silent connection has the handler's time-out, as PostgreSQL may take long over it."""
        head = await writer.fetchval("SELECT max(c.position) FROM reactive_orch.checkpoints c")
        return bool(len(handled) == head == expected)

    async with (
        Proxy(database) as proxy,
        connected(database) as writer,
        Node(Config(database_url=proxy.url())) as node,
        anyio.create_task_group() as tasks,
    ):
        worker = Worker(node, "test", [follow])
        tasks.start_soon(worker.run)
        for expected in (EVENTS, 2 * EVENTS, 3 * EVENTS):
            began = time.monotonic()
            await append_events(writer, EVENTS)
            await wait_until(all_committed, what=f"{expected} events are handled")
            proxy.silence("work")
        worker.stop()
    assert time.monotonic() - began < node.config.handler_timeout_s / 2
    assert handled == sorted(set(handled))


async def test_when_one_connection_gets_no_answer_none_is_waited_for(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NAT has forgotten all that were idle: the heartbeat tells first, and the look at the log would take longer."""
    monkeypatch.setattr(session, "ANSWER_TIMEOUT_S", 0.5)
    async with prepared(database) as db, Proxy(database) as proxy, running(proxy.url(), recorder("handled")):
        await append_events(db, EVENTS)
        await wait_handled(db)
        for kind in ("membership", "tail", "work", "coordination"):
            proxy.silence(kind)
        began = time.monotonic()
        await append_events(db, EVENTS)
        await wait_handled(db)
        assert time.monotonic() - began < STATEMENT_TIMEOUT_S / 2
        await assert_each_once(db)


async def test_who_only_gets_short_words_through_is_replaced(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a tunnel loses what is larger than it carries; a heartbeat is."""
    monkeypatch.setattr(session, "ANSWER_TIMEOUT_S", 0.5)

    async def stale() -> bool:
        return bool(await db.fetchval("SELECT bool_and(m.stale) FROM reactive_orch.member_status m"))

    async with prepared(database) as db, Proxy(database) as proxy, running(proxy.url(), recorder("handled")):
        await wait_settled(db)
        proxy.narrow(SHORT_BYTES)
        proxy.cut()
        await wait_until(stale, what="its last heartbeat is too old")
        await append_events(db, EVENTS)
        async with running(database, recorder("handled")):
            await wait_handled(db)
            proxy.narrow(CHUNK)
            await wait_settled(db, members=2)
        await assert_each_once(db)


async def test_the_kernel_watches_over_every_connection(database: str) -> None:
    pools = Database(database, label="test", connections_max=1, handler_timeout_s=60)
    await pools.open()
    async with pools.processing() as pooled:
        assert marks_of(pooled).server is not None
        own: BatchConnection = await pools.connect("tail")
        watched = own.socket
        assert watched is not None
        assert watched.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert watched.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
        own.terminate()
    await pools.close()
