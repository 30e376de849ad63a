"""What each alert is for, done for real. Each cause lasts until the scene ends."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from integration_test.harness import points
from integration_test.harness.arena import WORKER
from integration_test.harness.checkers import wait_settled
from integration_test.harness.cluster import Cluster, migrate
from integration_test.harness.command_line import NOBODY_LISTENS
from integration_test.harness.connections import connected
from integration_test.harness.in_process import serving
from integration_test.harness.load import Load, append_events, gate_closed
from integration_test.harness.projections import CURED, POISON, handled
from integration_test.harness.proxy import Proxy
from integration_test.harness.roles import END_POOLED, limited
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from integration_test.environments.jaeger.alerting import Scene

CAUSES: dict[str, Callable[[Scene], Awaitable[object]]] = {}
"""Alert → what gives cause for it."""


def causes(alert: str) -> Callable[[Callable[[Scene], Awaitable[object]]], Callable[[Scene], Awaitable[object]]]:
    """Note what gives cause for an alert."""

    def note(cause: Callable[[Scene], Awaitable[object]]) -> Callable[[Scene], Awaitable[object]]:
        CAUSES[alert] = cause
        return cause

    return note


# Workers that come, go, or are cut off.


@causes("NoWorker")
async def nobody_was_ever_started(_: Scene) -> None:
    pass


@causes("ReplicaSetGone")
async def the_last_worker_stops(scene: Scene) -> None:
    worker = await scene.worker("handled")
    await wait_settled(scene.connection)
    await wait_until(lambda: scene.values("reactive_orch_generation > 0"))
    await worker.stop()


@causes("RebalanceUnsettled")
async def a_batch_keeps_its_partitions(scene: Scene) -> None:
    await append_events(scene.connection, 50)
    waiting = await scene.keep(gate_closed(scene.url))
    await scene.worker("handled_at_gate")
    await wait_until(waiting, what="a batch is in flight")
    await scene.worker("handled_at_gate")


@causes("WorkerBehind")
@causes("FrontierStill")
async def one_worker_is_cut_off_without_a_word(scene: Scene) -> None:
    network = await scene.keep(Proxy(scene.url))
    await scene.worker("handled", database_url=network.url())
    await scene.worker("handled")
    await wait_settled(scene.connection, members=2)
    await scene.keep(Load(scene.url))
    network.swallow()


@causes("TooManyRebalances")
async def workers_come_and_go(scene: Scene) -> None:
    await scene.worker("handled")
    for _ in range(4):
        async with serving(scene.url, handled):
            await wait_settled(scene.connection, members=2)


@causes("WorkerExpelled")
async def who_was_frozen_is_kept_from_joining_anew(scene: Scene) -> None:
    frozen = await scene.worker("handled")
    await scene.worker("handled")
    await wait_settled(scene.connection, members=2)
    frozen.send(signal.SIGSTOP)
    await wait_settled(scene.connection, members=1)
    other = await scene.keep(connected(scene.url))
    await other.execute("BEGIN; LOCK TABLE reactive_orch.members IN SHARE ROW EXCLUSIVE MODE")
    frozen.send(signal.SIGCONT)


@causes("WorkerOverdue")
async def a_look_at_the_replica_set_never_ends(scene: Scene) -> None:
    await scene.worker("handled", module=WORKER, env={points.RULES: "observe.before=hang@20"})


@causes("WorkerInterrupted")
async def somebody_has_locked_what_registering_writes_to(scene: Scene) -> None:
    other = await scene.keep(connected(scene.url))
    await other.execute("BEGIN; LOCK TABLE reactive_orch.projections IN EXCLUSIVE MODE")
    await scene.worker("handled")


# Projections that get on no further, or not well.


@causes("LagWithoutProgress")
async def a_handler_hangs(scene: Scene) -> None:
    await append_events(scene.connection, 50)
    await scene.keep(gate_closed(scene.url))
    await scene.worker("handled_at_gate")


@causes("StandsStill")
async def somebody_has_locked_a_checkpoint(scene: Scene) -> None:
    await scene.worker("handled")
    await wait_settled(scene.connection)
    other = await scene.keep(connected(scene.url))
    await other.execute("BEGIN; SELECT FROM reactive_orch.checkpoints WHERE partition = 11 FOR UPDATE")
    await append_events(scene.connection, 1000, keys=1000)


@causes("HandlerFails")
async def an_event_is_tried_again_and_again(scene: Scene) -> None:
    await scene.worker("failing", options="--retries 100")
    await append_events(scene.connection, 1, event_type=POISON)


@causes("KeysWait")
async def an_event_is_given_up(scene: Scene) -> None:
    await scene.worker("failing", options="--retries 0")
    await append_events(scene.connection, 1, event_type=POISON)


@causes("ProjectionHalted")
async def an_event_is_given_up_that_must_not_be_parked(scene: Scene) -> None:
    await scene.worker("failing", options="--retries 0 --on-error halt")
    await append_events(scene.connection, 1, event_type=POISON)


@causes("ProjectionSuspended")
async def many_keys_fail_alike(scene: Scene) -> None:
    await scene.worker("failing", options="--retries 0")
    await append_events(scene.connection, 200, keys=200, event_type=POISON)


@causes("SteppedDown")
async def handlers_fail_on_one_machine_only(scene: Scene) -> None:
    await scene.worker("failing", options="--retries 0")
    for _ in range(2):
        await scene.worker("failing", env={CURED: "yes"})
    await wait_settled(scene.connection, members=3)
    await append_events(scene.connection, 180, keys=60, event_type=POISON)


@causes("ProjectionUnserved")
async def only_one_of_two_projections_is_deployed_again(scene: Scene) -> None:
    both = await scene.worker("handled", "handled_too")
    await wait_settled(scene.connection)
    await both.stop()
    await scene.worker("handled")


@causes("NothingToRun")
async def all_that_a_worker_has_has_another_filter(scene: Scene) -> None:
    await (await scene.worker("handled")).ready()
    await scene.worker("paid_only")


@causes("FilterRefused")
async def one_of_two_projections_has_another_filter(scene: Scene) -> None:
    await (await scene.worker("handled", "handled_too")).ready()
    await scene.worker("paid_only", "handled_too")


@causes("ConflictsRising")
async def somebody_locks_the_checkpoints_again_and_again(scene: Scene) -> None:
    await scene.worker("handled")
    await wait_settled(scene.connection)
    await scene.keep(Load(scene.url))
    await scene.keep(_again_and_again(scene.url, _LOCK_ALL))


_LOCK_ALL = "BEGIN; SELECT FROM reactive_orch.checkpoints FOR UPDATE; SELECT pg_sleep(0.1); COMMIT"


@causes("HandlersDeadlock")
async def handlers_write_shared_rows_in_any_order(scene: Scene) -> None:
    for _ in range(2):
        await scene.worker("sharing")
    await wait_settled(scene.connection, members=2)
    await scene.keep(Load(scene.url))
    # Else they go one at a time for up to ten minutes, as long as the alert looks back here.
    await scene.keep(_again_and_again(scene.url, "UPDATE reactive_orch.projections SET serial_until = '-infinity'"))


@contextlib.asynccontextmanager
async def _again_and_again(url: str, statement: str) -> AsyncIterator[None]:
    async def work() -> None:
        async with connected(url) as connection:
            while True:
                await connection.execute(statement)
                await asyncio.sleep(0.1)

    task = asyncio.create_task(work())
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@causes("EventLoopBlocked")
async def a_handler_does_not_await(scene: Scene) -> None:
    await scene.worker("handled_without_awaiting")
    await append_events(scene.connection, 1000)


# The log, and the server.


@causes("FrontierHeld")
async def somebody_has_appended_and_does_not_commit(scene: Scene) -> None:
    await scene.worker("handled")
    await wait_settled(scene.connection)
    writer = await scene.keep(connected(scene.url))
    await scene.keep(writer.transaction())
    await append_events(writer, 1)


@causes("NotificationQueueFills")
async def a_session_listens_and_does_not_end_its_transaction(scene: Scene) -> None:
    server = await scene.keep(_small_queue())
    await scene.worker("handled", database_url=server)
    listener, talker = await scene.keep(connected(server)), await scene.keep(connected(server))
    await listener.execute("LISTEN nobody")
    await listener.execute("BEGIN; SELECT 1")
    for number in range(30):
        await talker.execute("SELECT pg_notify('nobody', $1)", f"{number}{'.' * 7000}")


@contextlib.asynccontextmanager
async def _small_queue() -> AsyncIterator[str]:
    with Cluster("18") as cluster:
        url = cluster.create_database("queue")
        migrate(url)
        async with connected(url) as connection:
            await connection.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
        cluster.restart()
        yield url


@causes("DatabaseUnavailable")
async def the_server_refuses_everybody(scene: Scene) -> None:
    network = await scene.keep(Proxy(scene.url))
    await (await scene.worker("handled", database_url=network.url())).ready()
    network.lead_to(NOBODY_LISTENS)
    network.cut()


@causes("MembershipLost")
async def somebody_has_taken_the_lock_of_a_worker(scene: Scene) -> None:
    worker = await (await scene.worker("handled")).ready()
    other = await scene.keep(connected(scene.url))
    await other.execute(_TERMINATE_MEMBERSHIP)
    await other.execute("SELECT pg_advisory_lock(reactive_orch.lock_namespace(), $1)", await worker.member())


_TERMINATE_MEMBERSHIP = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name ~ '^reactive_orch:membership:'
"""


@causes("ConnectionsRefused")
async def a_role_may_have_no_more_connections(scene: Scene) -> None:
    name, url = await scene.keep(limited(scene.connection, scene.url, -1))
    await (await scene.worker("handled", database_url=url)).ready()
    await scene.connection.execute(f"ALTER ROLE {name} CONNECTION LIMIT 2")
    await scene.connection.execute(END_POOLED, name)
    await scene.keep(Load(scene.url))


@causes("WritersDoNotRing")
async def the_trigger_is_off(scene: Scene) -> None:
    await scene.connection.execute("ALTER TABLE reactive_orch.events DISABLE TRIGGER USER")
    await scene.worker("handled")


@causes("NotificationsMissing")
async def something_in_between_swallows_them(scene: Scene) -> None:
    pooler = await scene.keep(Proxy(scene.url, muffled=True))
    await scene.worker("handled", database_url=pooler.url())
    await scene.keep(Load(scene.url, pause_s=6, writers=1))
