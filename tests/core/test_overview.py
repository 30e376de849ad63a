"""From rows to how all of it stands, and to the problems; and their shape as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from reactive_orch.core.overview import overview
from reactive_orch.core.overview_json import as_json, since
from reactive_orch.core.problems import problems
from reactive_orch.model import OWN_LOG, Holder, MemberId, Subscription
from reactive_orch.model.account import Account, LogAccount, ProjectionAccount, account_of, account_text
from reactive_orch.model.overview import (
    GenerationSeen,
    LogSeen,
    ProjectionSeen,
    RestSeen,
    Seen,
    WorkerSeen,
)

if TYPE_CHECKING:
    from reactive_orch.model.overview import ProjectionOverview
    from reactive_orch.model.problems import Problem

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
TOTALS = Subscription("totals", OWN_LOG)
LOG = LogSeen(name=OWN_LOG, partitions=4, head=1_000, holders=(), refusal=None, slowest=800, first_waiting=None)
HOLDER = Holder(pid=7, prepared=None, application="shop", user="ann", age_s=40.0, state="idle", query="INSERT")
WRITER = replace(HOLDER, age_s=0.1)
ACCOUNT = Account(
    version="0.1.0",
    uptime_s=60.0,
    state="serving",
    logs={OWN_LOG: LogAccount(1_000, 20.0)},
    projections={TOTALS: ProjectionAccount(4, 200, 4.0, 120.0)},
)
STILL = ProjectionAccount(4, 200, 31.0, 0.0)
DONE = ProjectionAccount(4, 0, 0.0, 0.0)
WORKER = WorkerSeen(
    id=MemberId(1),
    replica_set="shop",
    name="vm:12:a1b2c3",
    state="active",
    connected=True,
    stale=False,
    heartbeat_age_s=0.5,
    stale_after_s=9.0,
    lacks=(),
    account=ACCOUNT,
)
PROJECTION = ProjectionSeen(
    replica_set="shop",
    subscription=TOTALS,
    rest=None,
    saved=(900, 800, 1_000, 1_000),
    owners=(MemberId(1),) * 4,
    served=True,
    serial_until=None,
    proposed=None,
    start="beginning",
    start_position=0,
    replays_to=None,
    leaves_replayed_out=False,
    exclusive=False,
    failing_keys=0,
    parked_keys=0,
    waiting_events=0,
    parked_events=0,
    failing_s=0.0,
    last_error=None,
    oldest_s=60.0,
)
GENERATION = GenerationSeen(number=3, reason="join", subjects=(1,), moved=4, age_s=50.0, complete_s=0.0123)


def seen(
    worker: WorkerSeen | None = WORKER,
    projection: ProjectionSeen = PROJECTION,
    log: LogSeen = LOG,
    generation: GenerationSeen | None = GENERATION,
) -> Seen:
    workers = [] if worker is None else [worker]
    return Seen(at=AT, logs=[log], generations={"shop": generation}, workers=workers, projections=[projection])


def shown(*of: Any, **more: Any) -> ProjectionOverview:
    return overview(seen(*of, **more)).replica_sets[0].projections[0]


def found(*of: Any, **more: Any) -> list[Problem]:
    return problems(overview(seen(*of, **more)))


def rest(state: Any, reason: str = "") -> RestSeen:
    return RestSeen(state=state, reason=reason, by="ann@vm", since=AT, age_s=5.0, tried_at=None)


def test_what_its_workers_tell_counts_and_not_what_they_have_saved() -> None:
    told = shown()
    assert (told.state, told.lag_events, told.lag_s, told.events_per_s) == ("running", 50, 4.5, 120.0)
    assert told.eta_s == 0.5, "50 events, by 120 - 20 a second"


def test_of_partitions_whose_worker_says_nothing_it_counts_what_has_been_saved() -> None:
    silent = replace(WORKER, account=None)
    assert shown(silent).lag_events == (100 + 200) // 4
    assert shown(silent).lag_s == 60.0, "the first event behind the checkpoints"
    half = replace(PROJECTION, owners=(MemberId(1), MemberId(2), MemberId(1), MemberId(1)))
    assert (shown(projection=half).lag_events, shown(projection=half).lag_s) == ((150 + 200) // 4 + 1, 60.0)


@pytest.mark.parametrize("gone", [{"connected": False}, {"heartbeat_age_s": 7.0}])
def test_a_worker_that_is_gone_tells_nothing(gone: dict[str, Any]) -> None:
    assert shown(replace(WORKER, **gone)).lag_events == 75
    assert shown(replace(WORKER, **gone)).events_per_s == 0


def test_a_worker_that_does_not_know_how_far_the_log_goes_tells_nothing() -> None:
    """As after a lost connection: it is behind nothing that it knows of."""
    unknown = replace(ACCOUNT, logs={OWN_LOG: LogAccount(None, 20.0)}, projections={TOTALS: DONE})
    assert shown(replace(WORKER, account=unknown)).lag_events == 75


def test_with_a_writer_at_work_the_settled_end_is_what_workers_tell() -> None:
    held = replace(LOG, holders=(HOLDER,), head=2_000)
    assert overview(seen(log=held)).logs[0].settled == 1_000
    assert overview(seen(log=replace(held, holders=()))).logs[0].settled == 2_000
    ahead = replace(PROJECTION, saved=(1_500,) * 4)
    assert overview(seen(projection=ahead, log=held)).logs[0].settled == 1_500, "what has been saved was settled"


@pytest.mark.parametrize("gone", [None, replace(WORKER, connected=False), replace(WORKER, heartbeat_age_s=7.0)])
def test_where_nobody_tells_how_far_the_log_is_settled_nobody_knows_what_waits(gone: WorkerSeen | None) -> None:
    """All has been handled up to where it was saved; more was committed since, beside a writer that is at work."""
    saved, held = replace(PROJECTION, saved=(1_000,) * 4), replace(LOG, holders=(WRITER,), head=6_000)
    assert overview(seen(gone, saved, held)).logs[0].settled is None
    told = shown(gone, saved, held)
    assert (told.lag_events, told.lag_most, told.lag_s, told.eta_s) == (None, 5_000, None, None)
    nothing = shown(gone, replace(saved, oldest_s=None), held)
    assert (nothing.lag_events, nothing.lag_s) == (0, 0.0), "no event is behind what has been saved"


@pytest.mark.parametrize("holders", [(), (WRITER,)])
def test_without_a_worker_that_events_wait_is_bad_whoever_writes(holders: tuple[Holder, ...]) -> None:
    """In the same words, although their number is known only while nobody writes."""
    saved = replace(PROJECTION, saved=(1_000,) * 4)
    (problem,) = found(None, saved, replace(LOG, holders=holders, head=6_000))
    assert (problem.level, problem.text) == ("bad", "replica set shop: no worker lives, and events wait: at most 5000")


def test_what_only_dead_workers_run_does_not_run() -> None:
    assert shown(replace(WORKER, connected=False)).state == "unserved"
    assert [each.code for each in found(replace(WORKER, connected=False))] == ["no_workers"]
    other = replace(WORKER, id=MemberId(2), lacks=("totals",))
    both = replace(seen(), workers=[replace(WORKER, connected=False), other])
    assert overview(both).replica_sets[0].projections[0].state == "unserved"


@pytest.mark.parametrize("holders", [(), (WRITER,)])
def test_a_worker_that_is_frozen_for_long_handles_nothing(holders: tuple[Holder, ...]) -> None:
    def of(silent_s: float, **more: Any) -> set[tuple[str, str]]:
        frozen = replace(WORKER, heartbeat_age_s=silent_s, **more)
        return {(each.level, each.code) for each in found(frozen, log=replace(LOG, holders=holders, head=2_000))}

    assert of(50.0) == {("bad", "stands_still"), ("warn", "worker_silent")}
    assert of(20.0) == {("warn", "worker_silent")}, "it may have handled events until then"
    assert of(50.0, connected=False) == {("bad", "no_workers")}


def test_what_was_settled_since_its_heartbeat_may_wait() -> None:
    done = replace(ACCOUNT, projections={TOTALS: DONE})
    told = shown(replace(WORKER, account=done), log=replace(LOG, head=1_020))
    assert (told.lag_events, told.lag_s) == (20, 0.5)


def test_while_partitions_are_handed_over_each_counts_once() -> None:
    """The giver's account is of before, the taker has none yet."""
    half = replace(PROJECTION, owners=(MemberId(2), MemberId(2), MemberId(1), MemberId(1)), saved=(800,) * 4)
    assert shown(projection=half).lag_events == (2 * 200 + 2 * 50) // 4


def test_what_rests_has_no_time_left_and_a_log_without_more_events_has_no_lag() -> None:
    assert shown(projection=replace(PROJECTION, rest=rest("paused"))).eta_s is None
    assert shown(replace(WORKER, account=None), replace(PROJECTION, oldest_s=None)).lag_events == 0


def test_a_worker_that_has_just_begun_is_not_accused() -> None:
    still = replace(WORKER, account=replace(ACCOUNT, projections={TOTALS: STILL}))
    assert found(still, generation=replace(GENERATION, age_s=5.0)) == []


def test_what_waits_for_its_filter_to_be_accepted_is_not_to_be_forgotten() -> None:
    (problem,) = found(projection=replace(PROJECTION, served=False, proposed="{}"))
    assert problem.code == "refused"


def test_a_name_that_begins_as_an_option_does() -> None:
    odd = replace(PROJECTION, subscription=Subscription("-dash", OWN_LOG), rest=rest("paused"))
    assert found(projection=odd)[0].command.endswith("--projection=-dash")


def test_what_is_done_is_done() -> None:
    done = replace(ACCOUNT, projections={TOTALS: DONE})
    told = shown(replace(WORKER, account=done))
    assert (told.lag_events, told.lag_s, told.eta_s) == (0, 0.0, 0.0)


def test_a_projection_that_gains_nothing_has_no_end() -> None:
    slow = replace(ACCOUNT, projections={TOTALS: ProjectionAccount(4, 200, 4.0, 20.0)})
    assert shown(replace(WORKER, account=slow)).eta_s is None


def test_who_keeps_up_is_not_given_an_end() -> None:
    """By 16 events waiting at 20.2 a second, while 20.0 come, it would be a minute and more, and never."""
    steady = replace(ACCOUNT, projections={TOTALS: ProjectionAccount(4, 64, 0.8, 20.2)})
    told = shown(replace(WORKER, account=steady))
    assert (told.lag_events, told.eta_s) == (16, None)


def test_nothing_is_settled_or_saved_beyond_the_last_position() -> None:
    """Which was looked at before these, while somebody appended."""
    account = replace(ACCOUNT, logs={OWN_LOG: LogAccount(1_004, 20.0)})
    writing = replace(LOG, holders=(WRITER,))
    assert overview(seen(replace(WORKER, account=account), log=writing)).logs[0].seen.head == 1_004
    saved = replace(PROJECTION, saved=(1_005,) * 4)
    assert overview(seen(projection=saved, log=writing)).logs[0].seen.head == 1_005
    older = replace(LOG, refusal="a checkpoint stands beyond its end")
    assert overview(seen(projection=saved, log=older)).logs[0].seen.head == 1_000


def test_a_rate_that_fades_away_says_nothing_of_the_end() -> None:
    quiet = replace(ACCOUNT, logs={OWN_LOG: LogAccount(1_000, 0.0)})
    of_late = {rate: replace(quiet, projections={TOTALS: ProjectionAccount(4, 200, 4.0, rate)}) for rate in (0.1, 1e-9)}
    assert [shown(replace(WORKER, account=each)).eta_s for each in of_late.values()] == [500.0, None]


def test_all_is_well() -> None:
    assert found() == []


START = "python -m reactive_orch --replica-set shop --projection MODULE"

PROBLEMS: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("bad", "log_refused", {"log": replace(LOG, refusal="rows hide")}, "rows hide", ""),
    (
        *("bad", "log_held", {"log": replace(LOG, holders=(HOLDER,))}),
        *(
            "the log cannot be read on: a transaction holds it",
            """psql "$DATABASE_URL" -c 'SELECT pg_terminate_backend(7)'""",
        ),
    ),
    (
        *("bad", "log_held", {"log": replace(LOG, holders=(replace(HOLDER, pid=None, prepared="it's"),))}),
        *(
            "the log cannot be read on: a transaction holds it",
            "psql \"$DATABASE_URL\" -c \"ROLLBACK PREPARED 'it''s'\"",
        ),
    ),
    ("bad", "no_workers", {"worker": None}, "replica set shop: no worker lives, and events wait: at most 75", START),
    (
        *("note", "no_workers", {"worker": None, "projection": replace(PROJECTION, saved=(1_000,) * 4)}),
        *("replica set shop: no worker lives", START),
    ),
    (
        *("warn", "unsettled", {"generation": replace(GENERATION, complete_s=None)}),
        *(
            "replica set shop: generation 3 is not settled yet",
            "python -m reactive_orch trace --replica-set shop",
        ),
    ),
    (
        *("warn", "worker_silent", {"worker": replace(WORKER, heartbeat_age_s=7.0)}),
        *("replica set shop: worker 1 says nothing, although it is connected", ""),
    ),
    (
        *("bad", "halted", {"projection": replace(PROJECTION, rest=rest("halted", "it\nfailed"))}),
        "replica set shop: projection totals is halted: it failed",
        "python -m reactive_orch resume --replica-set shop --projection totals",
    ),
    (
        *("warn", "suspended", {"projection": replace(PROJECTION, rest=rest("suspended"))}),
        "replica set shop: projection totals is suspended",
        "python -m reactive_orch resume --replica-set shop --projection totals",
    ),
    (
        *("note", "paused", {"projection": replace(PROJECTION, rest=rest("paused"))}),
        "replica set shop: projection totals is paused",
        "python -m reactive_orch resume --replica-set shop --projection totals",
    ),
    (
        *("warn", "unserved", {"projection": replace(PROJECTION, served=False)}),
        "replica set shop: projection totals is run by no worker",
        START,
    ),
    (
        *("warn", "refused", {"projection": replace(PROJECTION, proposed="{}")}),
        "replica set shop: projection totals is recorded with another filter; a worker would run it with {}",
        "python -m reactive_orch rewind --replica-set shop --projection totals --to keep",
    ),
    (
        *("warn", "keys_wait", {"projection": replace(PROJECTION, failing_keys=2, parked_keys=1)}),
        "replica set shop: projection totals: 2 keys wait behind a failed event",
        "python -m reactive_orch dead-letters show --replica-set shop --projection totals",
    ),
    (
        *("note", "keys_wait", {"projection": replace(PROJECTION, failing_keys=1)}),
        "replica set shop: projection totals: 1 key waits behind a failed event",
        "python -m reactive_orch dead-letters show --replica-set shop --projection totals",
    ),
    (
        *("note", "deadlocks", {"projection": replace(PROJECTION, serial_until=AT)}),
        *(
            "replica set shop: projection totals: handlers deadlock, batches go one at a time; "
            "give events that share rows one partition key, or write rows sorted, in one statement a batch",
            "",
        ),
    ),
    (
        "bad",
        "stands_still",
        {"worker": replace(WORKER, account=replace(ACCOUNT, projections={TOTALS: STILL}))},
        "replica set shop: no progress on projection totals: events wait: at most 50",
        "",
    ),
    (
        "bad",
        "stands_still",
        {"worker": replace(WORKER, account=replace(ACCOUNT, standstills={TOTALS: 31.0}))},
        "replica set shop: no progress on projection totals in some partitions of worker 1: events wait there, others "
        "are handled",
        "",
    ),
]


@pytest.mark.parametrize(("level", "code", "facts", "text", "command"), PROBLEMS)
def test_each_problem(level: str, code: str, facts: dict[str, Any], text: str, command: str) -> None:
    (problem,) = found(**facts)
    assert (problem.level, problem.code, problem.text, problem.command) == (level, code, text, command)


def test_what_has_halted_a_projection_is_looked_at_before_it_is_resumed() -> None:
    halted = replace(PROJECTION, rest=rest("halted"), failing_keys=1, parked_keys=1)
    (problem,) = [each for each in found(projection=halted) if each.code == "halted"]
    assert problem.command == "python -m reactive_orch dead-letters show --replica-set shop --projection totals"


def test_a_worker_that_nobody_removes() -> None:
    codes = {each.code: each for each in found(replace(WORKER, connected=False, stale=True, heartbeat_age_s=99.0))}
    assert set(codes) == {"no_workers", "worker_gone"}
    assert codes["worker_gone"].who == "vm:12:a1b2c3"


def test_workers_that_nobody_removes_are_told_in_one_line() -> None:
    lost = replace(WORKER, connected=False, stale=True)
    both = replace(seen(), workers=[lost, replace(lost, id=MemberId(2), name="vm:13:d4e5f6", heartbeat_age_s=99.0)])
    (gone,) = [each for each in problems(overview(both)) if each.code == "worker_gone"]
    assert gone.text == "replica set shop: 2 workers are gone, and nobody is there to note it"
    assert (gone.who, gone.age_s) == ("vm:12:a1b2c3, vm:13:d4e5f6", 99.0)


def test_the_worst_and_oldest_come_first() -> None:
    two = replace(PROJECTION, rest=rest("halted"), failing_keys=1, serial_until=AT)
    held = replace(LOG, holders=(HOLDER,))
    assert [each.code for each in found(projection=two, log=held)] == ["log_held", "halted", "keys_wait", "deadlocks"]


def test_names_are_quoted_for_the_shell() -> None:
    odd = replace(PROJECTION, subscription=Subscription("order totals", OWN_LOG), rest=rest("paused"))
    assert found(projection=odd)[0].command.endswith("--projection 'order totals'")


@pytest.mark.parametrize(
    ("slowest", "first_waiting", "refusal", "needed_after"),
    [
        (800, None, None, 800),
        (800, 700, None, 699),
        (800, 900, None, 800),
        (None, None, None, None),
        (800, 700, "!", None),
    ],
)
def test_up_to_where_nobody_needs_the_log_any_more(
    slowest: int | None, first_waiting: int | None, refusal: str | None, needed_after: int | None
) -> None:
    log = replace(LOG, slowest=slowest, first_waiting=first_waiting, refusal=refusal)
    assert overview(seen(log=log)).logs[0].needed_after == needed_after


def test_a_problem_names_for_programs_what_it_is_about() -> None:
    facts = seen(projection=replace(PROJECTION, failing_keys=1))
    told = as_json(overview(facts), problems(overview(facts)), lambda _: "")
    (waits,) = [each for each in told["problems"] if each["code"] == "keys_wait"]
    assert (waits["replica_set"], waits["projection"]) == ("shop", "totals")


def test_since_when_it_is_so_does_not_change_with_the_milliseconds_between_two_clocks() -> None:
    assert {
        since(AT + timedelta(seconds=look), 40.0 + look + apart) for look in (0, 7) for apart in (-0.2, 0, 0.2)
    } == {"2026-11-29T11:59:20+00:00"}


def test_the_shape_for_programs() -> None:
    facts = seen(log=replace(LOG, holders=(HOLDER,)))
    told = as_json(
        overview(facts), problems(overview(facts)), lambda age_s: (AT - timedelta(seconds=age_s)).isoformat()
    )
    assert json.loads(json.dumps(told)) == {
        "problems": [
            {
                "level": "bad",
                "code": "log_held",
                "text": "the log cannot be read on: a transaction holds it",
                "replica_set": None,
                "projection": None,
                "since": "2026-11-29T11:59:20+00:00",
                "who": "pid 7 of ann (shop), idle, open for 40.0 s",
                "command": """psql "$DATABASE_URL" -c 'SELECT pg_terminate_backend(7)'""",
            }
        ],
        "logs": [
            {
                "name": "events",
                "head": 1000,
                "settled": 1000,
                "partitions": 4,
                "events_per_s": 20.0,
                "deletable_to": 800,
                "held_by": [
                    {
                        "pid": 7,
                        "prepared": None,
                        "application": "shop",
                        "state": "idle",
                        "age_s": 40.0,
                        "query": "INSERT",
                    }
                ],
            }
        ],
        "replica_sets": [
            {
                "name": "shop",
                "generation": {"number": 3, "reason": "join", "age_s": 50.0, "moved": 4, "complete_ms": 12.3},
                "workers": [
                    {
                        "id": 1,
                        "name": "vm:12:a1b2c3",
                        "host": "vm",
                        "pid": 12,
                        "state": "serving",
                        "connected": True,
                        "heartbeat_age_s": 0.5,
                        "partitions": 4,
                        "version": "0.1.0",
                        "uptime_s": 60.5,
                    }
                ],
                "projections": [
                    {
                        "name": "totals",
                        "version": 1,
                        "log": "events",
                        "state": "running",
                        "lag_events": 50,
                        "lag_s": 4.5,
                        "events_per_s": 120.0,
                        "eta_s": 0.5,
                        "failing_keys": 0,
                        "waiting_events": 0,
                        "parked_keys": 0,
                        "parked_events": 0,
                        "last_error": None,
                    }
                ],
            }
        ],
    }


def test_an_account_comes_back_as_it_was_told() -> None:
    assert account_of(account_text(ACCOUNT)) == ACCOUNT
    assert account_of(None) is None
