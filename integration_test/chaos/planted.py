"""Planted bugs: each breaks one rule of the protocol in this process, as a programmer might have. One at a time."""

# ruff: noqa: SLF001 - a bug is planted where it would be written

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING, Any

import anyio
import asyncpg

from reactive_orch import appending
from reactive_orch.core import assignment, keys
from reactive_orch.core import generation as core
from reactive_orch.core.dealing import FAR_BEHIND_BATCHES
from reactive_orch.core.progress import Batch, Progress
from reactive_orch.core.suspicion import Suspects
from reactive_orch.errors import HandlerFailed, Superseded
from reactive_orch.model import Checkpoint, MemberId, Owners, Reason, Subscription, Swap
from reactive_orch.model.keys import Key
from reactive_orch.postgres import appending as pg_appending
from reactive_orch.postgres import checkpoints, dead_letters, log, log_check, membership, put_off, windows
from reactive_orch.postgres.admission import Admission
from reactive_orch.postgres.channels import AWAITED_CHANNEL, EVENTS_CHANNEL, GENERATIONS_CHANNEL
from reactive_orch.postgres.checkpoints import Batches
from reactive_orch.postgres.connection import BatchConnection
from reactive_orch.postgres.dead_letters import FailingKeys
from reactive_orch.postgres.faults import translated
from reactive_orch.postgres.shared_batches import SharedBatches
from reactive_orch.runtime.handling import in_hand, lanes
from reactive_orch.runtime.handling.calling import Calling
from reactive_orch.runtime.handling.in_hand import InHand
from reactive_orch.runtime.handling.lane import Lane
from reactive_orch.runtime.handling.markers import Markers
from reactive_orch.runtime.handling.runner import Runner
from reactive_orch.runtime.handling.runners import Runners
from reactive_orch.runtime.handling.serial import Serial
from reactive_orch.runtime.handling.together import Together
from reactive_orch.runtime.membership.session import Session
from reactive_orch.runtime.membership.trust import Trust
from reactive_orch.runtime.reading.fresh import Fresh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

    from reactive_orch.model import Event
    from reactive_orch.model.keys import Marker
    from reactive_orch.model.membership import Resting

MUTANT = "REACTIVE_ORCH_MUTANT"
"""Variable: which bug the worker has."""

PLANTED: dict[str, Callable[[], None]] = {}


def plant(name: str) -> None:
    """Break this process; nothing without a name. Raises KeyError when there is no such bug."""
    if name:
        PLANTED[name]()


def _bug(function: Callable[[], None]) -> Callable[[], None]:
    PLANTED[function.__name__] = function
    return function


def _replaced(text: str, old: str, new: str) -> str:
    assert old in text, f"the statement has changed: {old!r} is not in it"
    return text.replace(old, new)


def _put(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), f"{owner} has no {name} any more"
    setattr(owner, name, value)


@_bug
def swap_without_expected_position() -> None:
    sql = checkpoints._SQL
    sql.swap = _replaced(sql.swap, "AND s.expected = l.position AND s.epoch = l.epoch", "")


@_bug
def row_security_ignored_in_the_swap() -> None:
    sql = checkpoints._SQL
    sql.swap = _replaced(sql.swap, "t.relrowsecurity AND", "false AND t.relrowsecurity AND")


@_bug
def short_count_ignored() -> None:
    original = Batches._swap

    async def swap(self: Batches, swaps: Sequence[Swap]) -> None:
        with contextlib.suppress(Superseded):
            await original(self, swaps)

    _put(Batches, "_swap", swap)


@_bug
def swap_after_the_handlers_in_another_transaction() -> None:
    original = Batches.batch

    @contextlib.asynccontextmanager
    async def batch(self: Batches, swaps: Sequence[Swap], *_: Any) -> AsyncIterator[None]:
        async with self._connection.transaction():
            await self._connection.execute("SET TRANSACTION READ WRITE")
            yield
        async with original(self, swaps):
            pass

    _put(Batches, "batch", batch)


@_bug
def checkpoint_committed_before_the_handlers() -> None:
    original = Batches.batch

    @contextlib.asynccontextmanager
    async def batch(self: Batches, swaps: Sequence[Swap], *_: Any) -> AsyncIterator[None]:
        async with original(self, swaps):
            pass
        async with self._connection.transaction():
            await self._connection.execute("SET TRANSACTION READ WRITE")
            yield

    _put(Batches, "batch", batch)


@_bug
def no_reload_after_a_short_count() -> None:
    def invalidate(self: Lane) -> None:
        self._leaving.clear()
        self.progress.incarnation = self._scope.database.incarnation

    _put(Lane, "invalidate", invalidate)


@_bug
def deadline_moved_after_its_scope_was_cancelled() -> None:
    async def call(self: Calling, events: Sequence[Event], tx: Any) -> int:
        with anyio.CancelScope(deadline=anyio.current_time() + self.timeout_s) as scope:
            for event in events:
                await self._handler(event, tx)
                scope.deadline = anyio.current_time() + self.timeout_s
        return len(events)

    _put(Calling, "__call__", call)


@_bug
def batch_cut_short_keeps_its_whole_swap() -> None:
    def stop_short(self: Batches, swaps: Sequence[Swap]) -> None:
        del self, swaps

    _put(Batches, "stop_short", stop_short)


@_bug
def rewind_overwritten_by_its_own_batch() -> None:
    sql = checkpoints._SQL
    blind = _replaced(sql.move_back, "CASE c.epoch WHEN s.epoch THEN s.target ELSE c.position END", "s.target")
    _put(sql, "move_back", blind)


@_bug
def batch_cut_short_sets_partitions_back() -> None:
    def beginning(self: Batch, events: int) -> Batch:
        kept = self.events[:events]
        end = kept[-1].global_position
        swaps = tuple(Swap(swap.partition, swap.expected, end) for swap in self.swaps)
        return replace(self, events=kept, swaps=swaps, cut_at=end)

    _put(Batch, "beginning", beginning)


@_bug
def put_off_appends_survive_their_savepoint() -> None:
    async def keep(connection: Any, columns: Any, expected: Any, _ask: Any) -> bool:
        marks = getattr(connection, "marks", None)
        if marks is None or marks.put_off is None:
            return False
        marks.put_off.append((columns, expected))
        return True

    async def write(connection: Any) -> None:
        for columns, expected in connection.marks.take_put_off():
            await pg_appending.append_columns(connection, columns, expected)

    _put(appending, "put_off", keep)
    _put(put_off, "write", write)


@_bug
def sealed_by_whoever_says_so() -> None:
    """In the schema alone."""


_HEAD = "SELECT coalesce(pg_sequence_last_value(s.sequence), 0) FROM reactive_orch.logs s WHERE s.name = $1"
_HOLDERS = """
SELECT coalesce(array_agg(l.virtualtransaction), '{}') AS holders,
       coalesce(array_agg(l.virtualtransaction) FILTER (WHERE l.pid IS NULL), '{}') AS prepared
FROM pg_locks l
WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND l.relation = (SELECT s.relation::oid FROM reactive_orch.logs s WHERE s.name = $1)
  AND l.pid IS DISTINCT FROM pg_backend_pid()
"""


def _unwitnessed() -> None:
    """Silence the product's own witness of skipped events: it may end the worker before a checker has seen the bug."""

    async def witness(connection: Any, name: str, settled: int, unless_within_s: float) -> int:
        del connection, name, unless_within_s
        return settled

    _put(log_check, "witness", witness)


@_bug
def frontier_reads_the_holders_before_the_head() -> None:
    _unwitnessed()

    async def observe(connection: Any, name: str, *_: Any) -> log.Look:
        with translated():
            holders = await connection.fetchrow(_HOLDERS, name)
            await anyio.sleep(0.002)  # as a busy machine makes: the bug must not hide on a quiet one
            head = await connection.fetchval(_HEAD, name)
        return log.Look(head, holders["holders"], holders["prepared"], disarmed=False, queue=0)

    _put(log, "observe", observe)


@_bug
def frontier_trusts_the_head() -> None:
    _unwitnessed()

    async def observe(connection: Any, *_: Any) -> log.Look:
        with translated():
            head = await connection.fetchval("SELECT coalesce(max(global_position), 0) FROM reactive_orch.events")
        return log.Look(head, [], [], disarmed=False, queue=0)

    _put(log, "observe", observe)


@_bug
def frontier_blind_to_prepared_transactions() -> None:
    _unwitnessed()
    original = log.observe

    async def observe(connection: Any, *wanted: Any) -> log.Look:
        look = await original(connection, *wanted)
        running = [holder for holder in look.holders if holder not in look.prepared]
        return look._replace(holders=running, prepared=[])

    _put(log, "observe", observe)


@_bug
def run_with_a_gap_taken_for_whole() -> None:
    _unwitnessed()
    original = log.observe

    async def observe(connection: Any, *wanted: Any) -> log.Look:
        look = await original(connection, *wanted)
        with translated():
            seen = await connection.fetchval("SELECT max(global_position) FROM reactive_orch.events")
        return look._replace(holders=[], prepared=[]) if seen == look.head else look

    _put(log, "observe", observe)


@_bug
def flaw_ignored_in_the_look() -> None:
    original = log.observe

    async def observe(connection: Any, *wanted: Any) -> log.Look:
        return (await original(connection, *wanted))._replace(flaw=None)

    _put(log, "observe", observe)


@_bug
def fresh_events_taken_for_all_there_is() -> None:
    _put(Fresh, "_has", lambda *_: True)


@_bug
def fresh_events_read_with_the_looks_snapshot() -> None:
    """See `schema`."""


@_bug
def fresh_events_read_while_others_may_commit() -> None:
    sql = log._SQL
    _put(sql, "look", _replaced(sql.look, "o.holders = '{}' AND", ""))
    original = log.observe

    async def observe(connection: Any, *wanted: Any) -> log.Look:
        return (await original(connection, *wanted))._replace(holders=[], prepared=[])

    _put(log, "observe", observe)


@_bug
def group_goes_on_without_who_has_failed() -> None:
    call = InHand.call

    async def going_on(self: InHand, events: Any, tx: Any) -> int:
        with contextlib.suppress(HandlerFailed):
            return await call(self, events, tx)
        return len(events)

    _put(InHand, "call", going_on)


@_bug
def group_ignores_a_short_count() -> None:
    move = SharedBatches._move

    async def moved(self: SharedBatches, swaps: Any, token: str) -> Any:
        return (await move(self, swaps, token))._replace(swapped=len(swaps))

    _put(SharedBatches, "_move", moved)


@_bug
def group_moves_one_projection_alone() -> None:
    init = SharedBatches.__init__

    def of_the_first(self: SharedBatches, connection: Any, replica_set: str, parts: Any) -> None:
        init(self, connection, replica_set, parts)
        self._projections = [self._projections[0]] * len(self._projections)

    group_ignores_a_short_count()
    _put(SharedBatches, "__init__", of_the_first)


@_bug
def group_handles_beside_a_lane_that_is_awake() -> None:
    async def at_once(self: Together, member: Any) -> None:
        del self, member

    _put(Together, "leave", at_once)


@_bug
def changes_behind_the_settled_end_ignored() -> None:
    _unwitnessed()


@_bug
def memory_kept_across_a_lost_connection() -> None:
    def lost(self: Admission, *_: Any) -> None:
        del self

    _put(Admission, "lost", lost)


@_bug
def connections_are_not_asked_where_they_lead() -> None:
    def admit(self: Admission, connection: Any, begun: Any) -> None:
        del self
        connection.marks.incarnation = begun

    _put(Admission, "admit", admit)


@_bug
def backlog_dealt_among_fresh_events() -> None:
    def deal(
        _dealt: Any, positions: Mapping[int, int], _settled: int, lanes: int, _batch_events: int
    ) -> dict[int, int]:
        return {partition: partition % lanes for partition in positions}

    _put(lanes, "deal", deal)


@_bug
def distance_measured_from_a_neighbour() -> None:
    def deal(_dealt: Any, positions: Mapping[int, int], _settled: int, lanes: int, batch_events: int) -> dict[int, int]:
        due: dict[int, int] = {}
        for partition, position in positions.items():
            low = min((positions[p] for p in due if due[p] == partition % lanes), default=position)
            due[partition] = lanes if position < low - FAR_BEHIND_BATCHES * batch_events else partition % lanes
        return due

    _put(lanes, "deal", deal)


@_bug
def limit_taken_for_the_end_of_the_window() -> None:
    original = windows.read_window

    async def read_window(connection: Any, name: str, window: Any, wanted: Any) -> windows.Found:
        return (await original(connection, name, window, wanted))._replace(end=window.high)

    _put(windows, "read_window", read_window)


@_bug
def cut_off_known_by_payloads_only() -> None:
    original = windows.read_window

    async def read_window(connection: Any, name: str, window: Any, wanted: Any) -> windows.Found:
        found = await original(connection, name, window, wanted)
        payloads = sum(len(event.payload) for event in found.events)
        cut = len(found.events) == window.limit or payloads >= windows.WINDOW_BYTES_MAX
        return found if cut else found._replace(end=window.high)

    _put(windows, "read_window", read_window)


@_bug
def failing_keys_read_before_the_lock() -> None:
    def unknown(self: keys.KnownKeys, swaps: Iterable[Swap]) -> list[int]:
        return [swap.partition for swap in swaps if swap.partition not in self._of]

    _put(keys.KnownKeys, "unknown", unknown)


@_bug
def later_events_of_a_failing_key_handled() -> None:
    _put(in_hand, "split", lambda events, _failing: (events, ()))


@_bug
def retry_leaves_a_gap() -> None:
    original = FailingKeys.evict

    async def evict(self: FailingKeys, connection: Any, key: Any, up_to: Any, *, left_out: bool = False) -> bool:
        further = up_to if left_out else up_to + 10
        return await original(self, connection, key, further, left_out=left_out)

    _put(FailingKeys, "evict", evict)


@_bug
def failing_keys_not_counted() -> None:
    statements = dead_letters._SQL
    _put(statements, "set_aside", _replaced(statements.set_aside, "c.failing + 1", "c.failing"))


@_bug
def what_waits_counted_for_each_batch_alone() -> None:
    statements = dead_letters._SQL
    _put(statements, "set_aside", _replaced(statements.set_aside, "SELECT w.keys + 1 -", "SELECT 1 -"))
    _put(statements, "queue", _replaced(statements.queue, "SELECT w.keys, w.events +", "SELECT w.keys, 0 +"))


@_bug
def partition_keys_forgotten() -> None:
    def key_of(event: Event) -> Key:
        return Key(event.bounded_context, event.aggregate_type, event.aggregate_id)

    for module in (keys, in_hand):
        _put(module, "key_of", key_of)


@_bug
def handled_to_not_kept() -> None:
    """In the schema alone."""


@_bug
def unhandled_events_forgotten() -> None:
    """In the schema alone."""


@_bug
def marker_blames_the_whole_batch() -> None:
    def killed(self: Suspects, partition: int, position: int) -> Marker | None:
        marker = self.found.get(partition)
        return marker if marker is not None and position <= marker.position else None

    _put(Suspects, "killed", killed)


@_bug
def marker_not_taken_back() -> None:
    async def take_back(_: Markers) -> None:
        pass

    _put(Markers, "_take_back", take_back)


@_bug
def no_marker_put() -> None:
    async def put(*_: Any) -> None:
        pass

    _put(Markers, "put", put)


@_bug
def pause_forgotten_by_a_new_owner() -> None:
    seen_running: set[Subscription] = set()
    original = Runners.rest

    def rest(self: Runners, resting: Mapping[Subscription, Any]) -> None:
        seen_running.update(self.by_subscription.keys() - resting.keys())
        original(self, {each: state for each, state in resting.items() if each in seen_running})

    _put(Runners, "rest", rest)


@_bug
def suspension_ignored() -> None:
    original = Runner.rest

    def rest(self: Runner, resting: Resting | None) -> None:
        original(self, resting if resting is not None and resting.state != "suspended" else None)

    _put(Runner, "rest", rest)


@_bug
def turn_taken_after_the_swap() -> None:
    original = Batches._swap
    due: set[Batches] = set()

    async def turn(self: Serial, batches: Batches) -> bool:
        if self.on:
            due.add(batches)
        return True

    async def swap(self: Batches, swaps: Sequence[Swap]) -> None:
        await original(self, swaps)
        while self in due and not await self.await_others():
            pass
        due.discard(self)

    _put(Serial, "turn", turn)
    _put(Batches, "_swap", swap)


@_bug
def turns_among_the_lanes_of_one_worker_alone() -> None:
    async def turn(self: Serial, batches: Batches) -> bool:
        del self, batches
        return True

    _put(Serial, "turn", turn)


@_bug
def deadlocked_statements_passed_over() -> None:
    original = asyncpg.Connection.executemany

    async def executemany(self: BatchConnection, *args: Any, **kwargs: Any) -> None:
        with contextlib.suppress(asyncpg.DeadlockDetectedError):
            async with self.transaction():
                await original(self, *args, **kwargs)

    _put(BatchConnection, "executemany", executemany)


@_bug
def saved_lazily_beyond_unread_events() -> None:
    def unsaved(self: Progress, partitions: Iterable[int]) -> tuple[Swap, ...]:
        end = max(self.read_to.values(), default=0)
        behind = (p for p in sorted(partitions) if p in self.saved and self.saved[p].position < end)
        return tuple(Swap(p, self.saved[p], end) for p in behind)

    _put(Progress, "unsaved", unsaved)


@_bug
def gap_passed_beyond_the_settled_end() -> None:
    original = windows.next_position

    async def next_position(connection: Any, name: str, after: int, settled: int) -> int | None:
        del settled
        return await original(connection, name, after, 2**63 - 1)

    _put(windows, "next_position", next_position)


@_bug
def take_over_without_the_row_lock_from_a_cache() -> None:
    cache: dict[tuple[str, int], Checkpoint] = {}

    async def load_free(
        connection: Any, replica_set: str, projection: Any, partitions: Collection[int]
    ) -> dict[int, Checkpoint]:
        rows = await connection.fetch(_UNLOCKED, replica_set, projection.name, sorted(partitions))
        for partition, position, epoch in rows:
            cache.setdefault((projection.name, partition), Checkpoint(position, epoch))
        return {p: cache[projection.name, p] for p in partitions}

    _put(checkpoints, "load_free", load_free)


_UNLOCKED = """
SELECT c.partition, c.position, c.epoch FROM reactive_orch.checkpoints c
WHERE c.replica_set = $1 AND c.projection = $2 AND c.partition = ANY ($3::smallint[])
"""


@_bug
def sticky_assignment_gives_one_partition_to_two() -> None:
    original = core.assigned_to
    mine: dict[Subscription, frozenset[int]] = {}

    def assigned_to(snapshot: Any, me: MemberId) -> Mapping[Subscription, frozenset[int]]:
        for each, partitions in original(snapshot, me).items():
            mine[each] = mine.get(each, frozenset()) | partitions
        return dict(mine)

    _put(core, "assigned_to", assigned_to)


@_bug
def assignment_ignores_who_has_what() -> None:
    def assign(
        owners: Owners,
        members: Mapping[MemberId, frozenset[Subscription]],
        partitions: Mapping[Subscription, int],
        exclusive: frozenset[Subscription],
    ) -> Owners:
        dealt = {each: sorted(m for m, runs in members.items() if each in runs) for each in partitions}
        return {
            each: tuple(able[p % len(able)] for p in range(partitions[each]))
            if able
            else assignment.assign(owners, members, partitions, exclusive)[each]
            for each, able in dealt.items()
        }

    _put(core, "assign", assign)


@_bug
def exclusive_projection_divided() -> None:
    def assign(
        owners: Owners,
        members: Mapping[MemberId, frozenset[Subscription]],
        partitions: Mapping[Subscription, int],
        exclusive: frozenset[Subscription],
    ) -> Owners:
        del exclusive
        return assignment.assign(owners, members, partitions)

    _put(core, "assign", assign)


@_bug
def acknowledged_before_drained_and_loaded() -> None:
    _put(Runner, "reconciled", property(lambda _: True))


@_bug
def listens_after_the_first_read() -> None:
    async def open_late(self: Session) -> None:
        add_listener = _added_later(self)
        connect = self._database.connect

        async def connect_without(kind: str, **kwargs: Any) -> Any:
            connection = await connect(kind, **kwargs)
            connection.add_listener = add_listener(connection, connection.add_listener)
            return connection

        self._database.connect = connect_without  # type: ignore[assignment]
        try:
            await original(self)
        finally:
            self._database.connect = connect  # type: ignore[method-assign]

    original = Session.open
    _put(Session, "open", open_late)


def _added_later(session: Session) -> Callable[..., Any]:
    """Return a stand-in for `add_listener` that listens a while later, in the background, when everybody has read."""
    import asyncio

    tasks = set()

    def of(connection: Any, add: Callable[..., Any]) -> Callable[..., Any]:
        async def later(channel: str, callback: Any) -> None:
            await anyio.sleep(1.5)
            with contextlib.suppress(Exception):
                async with session._one_at_a_time:
                    if not connection.is_closed():
                        await add(channel, callback)

        async def add_listener(channel: str, callback: Any) -> None:
            assert channel in {EVENTS_CHANNEL, GENERATIONS_CHANNEL, AWAITED_CHANNEL}
            task = asyncio.create_task(later(channel, callback))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        return add_listener

    return of


@_bug
def member_row_before_its_lock() -> None:
    async def join(
        connection: Any, replica_set: str, name: str, runs: Collection[Subscription], stale_s: float, *_: Any
    ) -> MemberId:
        row = (replica_set, name, *checkpoints.columns(sorted(runs)), stale_s)
        member = await connection.fetchval(_ROW_ALONE, *row)
        await connection.execute("SELECT pg_advisory_lock(reactive_orch.lock_namespace(), $1)", member)
        return MemberId(member)

    _put(membership, "join", join)


_ROW_ALONE = """
INSERT INTO reactive_orch.members (id, replica_set, name, projections, logs, backend_pid, backend_start, stale_after)
SELECT nextval('reactive_orch.member_ids'), $1, $2, $3::text[], $4::text[], a.pid, a.backend_start,
       make_interval(secs => $5)
FROM pg_stat_get_activity(pg_backend_pid()) a RETURNING id
"""


@_bug
def free_lock_trusted_after_a_restart() -> None:
    original = core.plan_change

    def plan_change(snapshot: Any, *, trust: bool, watched_s: float) -> Any:
        del trust
        return original(snapshot, trust=True, watched_s=watched_s)

    _put(core, "plan_change", plan_change)


@_bug
def old_heartbeat_trusted_after_an_outage() -> None:
    original = core._gone

    def gone(member: Any, watched_s: float, *, trust: bool) -> Any:
        return original(member, watched_s, trust=trust) or (Reason.STALE if member.stale else None)

    _put(core, "_gone", gone)


@_bug
def old_heartbeat_trusted_by_a_newcomer() -> None:
    _put(Trust, "watched_s", float("inf"))


def schema(name: str) -> str:
    """Return what a bug changes in the database's schema, before the workers start."""
    text = (resources.files("reactive_orch.postgres") / "schema" / "001_initial.sql").read_text()
    return _IN_THE_SCHEMA[name](text) if name in _IN_THE_SCHEMA else ""


def _rewind_with(old: str, new: str) -> Callable[[str], str]:
    def changed(text: str) -> str:
        function = re.search(r"CREATE (FUNCTION reactive_orch\.rewind\(.*?\$\$;)\n", text, re.DOTALL)
        assert function, "the function has another name"
        return f"CREATE OR REPLACE {_replaced(function[1], old, new)}"

    return changed


def _sealed_by_any_word(text: str) -> str:
    function = re.search(r"CREATE (FUNCTION reactive_orch\.refuse_unsealed\(\).*?\$\$;)\n", text, re.DOTALL)
    assert function, "the function has another name"
    said = "coalesce(pg_catalog.current_setting('reactive_orch.sealed', true), '') = ''"
    trusting, found = re.subn(r"coalesce\(.*?, true\)(?= THEN)", said, function[1], flags=re.DOTALL)
    assert found == 1, "the function decides in another way what is sealed"
    return f"CREATE OR REPLACE {trusting}"


def _any_free_lock_proves_death(text: str) -> str:
    view = re.search(r"CREATE VIEW (reactive_orch\.member_status.*?;)\n", text, re.DOTALL)
    assert view, "the view has another name"
    trusting, found = re.subn(
        r"SELECT l\.pid IS NULL\n.*? AS dead", "SELECT l.pid IS NULL AS dead", view[1], flags=re.DOTALL
    )
    assert found == 1, "the view decides in another way what proves death"
    return f"CREATE OR REPLACE VIEW {trusting}"


_IN_THE_SCHEMA = {
    free_lock_trusted_after_a_restart.__name__: _any_free_lock_proves_death,
    sealed_by_whoever_says_so.__name__: _sealed_by_any_word,
    handled_to_not_kept.__name__: _rewind_with("greatest(c.handled_to, c.position)", "c.position"),
    fresh_events_read_with_the_looks_snapshot.__name__: lambda _: "ALTER FUNCTION reactive_orch.fresh_events STABLE",
    unhandled_events_forgotten.__name__: _rewind_with("(u.position <= c.position OR estranged)", "true"),
}
