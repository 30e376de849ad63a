"""What a worker says of itself with its heartbeats."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from reactive_orch.model import OWN_LOG, MemberId, Subscription, WorkerState
from reactive_orch.model.account import account_of
from reactive_orch.model.status import LogStatus, ProjectionStatus, Status, WorkerStatus
from reactive_orch.runtime import accounts
from reactive_orch.runtime.accounts import Accounts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.model.account import Account

ME = MemberId(1)
WORKER = WorkerStatus(replica_set="shop", member=ME, state=WorkerState.SERVING, seen=None, projections=())
STATUS = Status(listening_s=1.0, queue_usage=0.0, logs=(), pools={}, workers=(WORKER,), problems=())


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    accounts.version.cache_clear()
    yield
    accounts.version.cache_clear()


def told(positions: list[int | None], clock: pytest.MonkeyPatch) -> Account:
    """Return what is said at the last of these looks, a second each."""
    seen = [replace(STATUS, logs=(LogStatus(OWN_LOG, settled, 0.0, {}),)) for settled in positions]
    made = Accounts(lambda: seen.pop(0))
    account = None
    for second in range(len(positions)):
        clock.setattr(time, "monotonic", lambda second=second: 100.0 + second)
        account = account_of(made.of({ME})[ME])
    assert account is not None
    return account


def test_a_log_whose_end_was_unknown_has_not_leapt(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told([None, 1_000_000], monkeypatch).logs[OWN_LOG].events_per_s == 0
    assert told([1_000_000, 1_000_010], monkeypatch).logs[OWN_LOG].events_per_s == 10
    assert told([1_000_000, 1_000_010, None], monkeypatch).logs[OWN_LOG] == (None, 10)
    assert told([1_000_000, 1_000_010, None, 1_000_030], monkeypatch).logs[OWN_LOG].events_per_s == 10


def test_what_a_later_release_adds_is_passed_over() -> None:
    text = """{"version": "9", "uptime_s": 1, "state": "serving", "mood": "fine", "logs": {"events": [5, 1.5, "more"]},
               "projections": [["totals", "events", 64, 3, 0.5, 9.5, "more"]]}"""
    account = account_of(text)
    assert account is not None
    assert account.logs == {OWN_LOG: (5, 1.5)}
    assert account.projections == {("totals", OWN_LOG): (64, 3, 0.5, 9.5)}


@pytest.mark.parametrize("error", [metadata.PackageNotFoundError("reactive_orch"), OSError("too many open files")])
def test_what_is_not_installed_has_no_version_and_a_heartbeat(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def missing(_name: str) -> str:
        raise error

    monkeypatch.setattr(metadata, "version", missing)
    assert told([1], monkeypatch).version == "unknown"


def test_nobody_speaks_for_a_member_that_is_none() -> None:
    assert Accounts(lambda: STATUS).of({MemberId(2)}) == {}


def test_a_worker_is_as_busy_as_the_lanes_of_its_busiest_projection(monkeypatch: pytest.MonkeyPatch) -> None:
    def status(first_s: float, second_s: float) -> Status:
        projections = tuple(
            ProjectionStatus(
                subscription=Subscription(name, OWN_LOG),
                lag=0,
                held=1,
                behind=0,
                lag_s=0.0,
                events_handled=0,
                busy_s=busy_s,
                lanes=lanes,
                standstill_s=0.0,
                failing_keys=0,
                one_at_a_time=False,
                owned=1,
                awaited=0,
                leaving=0,
            )
            for name, busy_s, lanes in (("one", first_s, 4), ("other", second_s, 1))
        )
        return replace(STATUS, workers=(replace(WORKER, projections=projections),))

    seen = [status(0, 0), status(2.0, 0.25)]
    made = Accounts(lambda: seen.pop(0))
    for second in range(2):
        monkeypatch.setattr(time, "monotonic", lambda second=second: 100.0 + second)
        account = account_of(made.of({ME})[ME])
    assert account is not None
    assert account.busy == 0.5
