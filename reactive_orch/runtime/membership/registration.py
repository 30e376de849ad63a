"""Before a worker joins and after it is gone: registering its projections, giving them up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import anyio

from reactive_orch.core.generation import served
from reactive_orch.errors import ConfigError, Refused, Superseded, Unavailable
from reactive_orch.model import Projection, Window
from reactive_orch.model.reports import (
    FilterUnmatched,
    ProjectionAccepted,
    ProjectionGivenUp,
    ProjectionProposed,
    ProjectionRefused,
    Subject,
    TookPartAgain,
)
from reactive_orch.postgres import checkpoints, membership, windows
from reactive_orch.postgres.pool import CLEANUP_TIMEOUT_S
from reactive_orch.runtime.backoff import Backoff
from reactive_orch.runtime.interruptions import passing_over

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from reactive_orch.model import Member, MemberId, Snapshot, Subscription
    from reactive_orch.postgres.connection import AnyConnection
    from reactive_orch.runtime.handling.runners import Runners
    from reactive_orch.runtime.interruptions import Interruptions
    from reactive_orch.runtime.node import Node

WARM_UP_S = 2.0
LOOK_FOR_S = 600.0
"""A time is looked up in the whole log if small events fill old pages of the table: a million events take some 2 s."""


def checked(projections: object) -> tuple[Projection, ...]:
    """Return them. Raises ConfigError when there are none, two of one name, or something else among them."""
    if isinstance(projections, str) or not isinstance(projections, Iterable):
        msg = "the projections of a worker are a list: [order_status], also where there is one"
        raise ConfigError(msg)
    given = tuple(projections)
    if others := [repr(each) for each in given if not isinstance(each, Projection)]:
        msg = f"no projection (@projection makes one): {', '.join(others)}"
        raise ConfigError(msg)
    if deaf := [repr(each.name) for each in given if each.filter.event_types == ()]:
        msg = f"no event comes to {', '.join(deaf)}: a projection of event classes needs a handler, made by its `on`"
        raise ConfigError(msg)
    wanted = [projection.subscription for projection in given]
    twice = sorted({each.projection for each in wanted if wanted.count(each) > 1})
    if not wanted:
        msg = "no projection to run"
        raise ConfigError(msg)
    if twice:
        msg = f"two projections are named {', '.join(map(repr, twice))}: names must differ within a replica set"
        raise ConfigError(msg)
    return given


async def register(
    node: Node, replica_set: str, projections: Sequence[Projection], interruptions: Interruptions
) -> list[Projection]:
    """Record the projections, trying until the database answers; return those this worker may run.

    Perhaps none: all are recorded with another filter. Raises ConfigError when checkpoints were deleted.
    """
    refused = await _refused(node, replica_set, projections, interruptions)
    for subscription in sorted(refused):
        node.watchers.emit(ProjectionRefused(Subject(replica_set, *subscription)))
    accepted = [projection for projection in projections if projection.subscription not in refused]
    if accepted and not node.warm:
        node.warm = True  # only one may hold several connections at once, or all would wait for each other
        with passing_over(node.watchers.emit, "warm up", Unavailable, Superseded, Refused, of=(replica_set,)):
            await node.database.look_for_deadlocks_sooner()
            with anyio.move_on_after(WARM_UP_S):  # it waits for itself if the server refuses more connections
                await _warm_up(node, replica_set, accepted[0])
    return accepted


async def _warm_up(node: Node, replica_set: str, projection: Projection) -> None:
    """Open what a take-over needs, and let those backends load their catalogs: a new one's first statements take 15 ms.

    Here nobody waits for this worker yet; as a member it would hold up a generation.
    """
    nowhere = Window((), 0, 0, 1)
    async with (
        node.database.coordination() as one,
        node.database.coordination() as other,
        node.database.processing() as reader,
    ):
        await checkpoints.load_free(one, replica_set, projection, ())
        await checkpoints.load_free(other, replica_set, projection, ())
        await windows.read_window(reader, projection.log, nowhere, projection.filter)


async def tell_unmatched(node: Node, replica_set: str, projections: Sequence[Projection]) -> None:
    """Tell of the projections whose filter lets none of the events pass that are looked at. Nobody waits for it."""
    for each in projections:
        if each.filter.lets_all_pass:
            continue
        with passing_over(node.watchers.emit, "filters", Unavailable, Superseded, of=(replica_set, *each.subscription)):
            async with node.database.coordination() as connection:
                passes = await windows.any_passes(connection, each.log, each.filter)
            if not passes:
                report = FilterUnmatched(Subject(replica_set, *each.subscription), windows.LOOKED_AT)
                node.watchers.emit(report)


async def register_unless(
    stopped: anyio.Event,
    node: Node,
    replica_set: str,
    projections: Sequence[Projection],
    interruptions: Interruptions,
) -> list[Projection]:
    """Do what `register` does, but return an empty list when `stopped` is set before the database has answered."""

    async def cancel_when_stopped() -> None:
        await stopped.wait()
        tasks.cancel_scope.cancel()

    accepted: list[Projection] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancel_when_stopped)
        accepted = await register(node, replica_set, projections, interruptions)
        tasks.cancel_scope.cancel()
    return accepted


async def give_up_unwanted(node: Node, replica_set: str, me: Member, runners: Runners) -> bool:
    """Go on without the projections whose recorded filter has changed, or that others are to run; tell if any were.

    The member's row in the database decides what is given up, and is changed first: what it names, the others believe
    this member to handle.
    """
    unwanted = me.subscriptions - runners.wanted
    for subscription in sorted(unwanted):
        async with node.database.coordination() as connection:
            await membership.give_up(connection, me, subscription)
    # Not only those of this turn: the answer to a former one may have been lost.
    for subscription in sorted(runners.by_subscription.keys() - runners.wanted):
        if runners.by_subscription[subscription].standing.refused:
            node.watchers.emit(ProjectionGivenUp(Subject(replica_set, *subscription)))
        runners.give_up(subscription)
    return bool(unwanted)


async def take_up_accepted(node: Node, replica_set: str, snapshot: Snapshot, me: Member, runners: Runners) -> bool:
    """Go on with the refused projections whose filter is the recorded one now; tell whether there were any.

    And with those that were left to others, when their time is over.

    Nothing is proposed here: what was accepted is not to be taken back by the next rewind. `propose_again` does, once
    nobody runs it.
    """
    out = runners.out
    to_ask = {each: out[each].projection.filter for each in out.to_ask(snapshot.epochs)}
    if to_ask:
        async with node.database.coordination() as connection:
            accepted = await checkpoints.accepted(connection, replica_set, to_ask)
        for each in sorted(accepted):
            subject, refused = Subject(replica_set, *each), out[each].standing.refused
            runners.add([out.take(each)])
            node.watchers.emit(ProjectionAccepted(subject) if refused else TookPartAgain(subject))
        out.refuse(to_ask.keys() - accepted, snapshot.epochs)
    missing = runners.wanted - me.subscriptions
    for each in sorted(missing):
        async with node.database.coordination() as connection:
            await membership.take_up(connection, me, each)
    return bool(missing)


async def propose_again(node: Node, replica_set: str, snapshot: Snapshot, runners: Runners) -> None:
    """Come with the filters again of refused projections that nobody runs: whoever had the accepted ones is gone.

    That alone brings nothing back; it lets the express word find what it may accept. When somebody runs one again it is
    taken back: who came may have registered before it was proposed, and asked to be admitted after.
    """
    out, runs = runners.out, served(snapshot)
    for each in sorted(out.refused - runs):
        async with node.database.coordination() as connection:
            proposed = await membership.propose_again(connection, replica_set, out[each].projection)
        if proposed:
            out.proposed.add(each)
            node.watchers.emit(ProjectionProposed(Subject(replica_set, *each)))
    for each in sorted(out.proposed & runs):
        async with node.database.coordination() as connection:
            if await membership.withdraw(connection, replica_set, out[each].projection):
                out.proposed.discard(each)


async def ask_to_leave(node: Node, me: MemberId) -> None:
    """Ask to be removed by the next generation."""
    async with node.database.coordination() as connection:
        await membership.leave(connection, me, node.label)


@contextlib.asynccontextmanager
async def _connected(node: Node, projections: Sequence[Projection]) -> AsyncIterator[AnyConnection]:
    """Borrow a connection; or open one with patience, as to look for a time in a large log may take minutes."""
    if all(isinstance(each.start, str) for each in projections):
        async with node.database.coordination() as borrowed:
            yield borrowed
        return
    own = await node.database.connect("registration", LOOK_FOR_S)
    try:
        yield own
    finally:
        with anyio.CancelScope(shield=True), contextlib.suppress(Exception):
            await own.close(timeout=CLEANUP_TIMEOUT_S)
        own.terminate()


async def _refused(
    node: Node, replica_set: str, projections: Sequence[Projection], interruptions: Interruptions
) -> frozenset[Subscription]:
    wanted = {projection.subscription for projection in projections}
    backoff = Backoff(0.05, 5.0)
    while True:
        try:
            async with _connected(node, projections) as connection:
                refused = await membership.register(connection, replica_set, projections)
                await checkpoints.demand_complete(connection, replica_set, wanted - refused)
        except (Unavailable, Superseded) as error:
            interruptions.note("register", error)
            await node.database.admission.pause(backoff.next_s())
        else:
            interruptions.over()
            return refused
