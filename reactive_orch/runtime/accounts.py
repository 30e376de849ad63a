"""What the workers of a process say of themselves with each heartbeat, made from memory."""

from __future__ import annotations

import time
from collections import defaultdict
from functools import cache, partial
from typing import TYPE_CHECKING

from reactive_orch.core.rate import Rate
from reactive_orch.model.account import Account, LogAccount, ProjectionAccount, account_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from reactive_orch.model import LogName, MemberId, Subscription
    from reactive_orch.model.status import LogStatus, ProjectionStatus, Status, WorkerStatus


class Accounts:
    """Those of one process. It remembers what it has counted, to say how fast it goes."""

    def __init__(self, status: Callable[[], Status]) -> None:
        """`status` tells how the process stands."""
        self._status = status
        self._began_s = time.monotonic()
        self._log_rates: defaultdict[LogName, Rate] = defaultdict(Rate)
        self._rates: defaultdict[MemberId | None, defaultdict[tuple[str, Subscription], Rate]] = defaultdict(
            partial(defaultdict, Rate)
        )
        """By member, and by what is counted of which projection."""

    def of(self, members: Collection[MemberId]) -> dict[MemberId, str]:
        """Return member → what it says of itself, of those whose worker is there."""
        status, now_s = self._status(), time.monotonic()
        logs = {each.log: LogAccount(each.settled, self._log_rate(each, now_s)) for each in status.logs}
        told = {
            worker.member: account_text(self._account(worker, logs, now_s))
            for worker in status.workers
            if worker.member in members and worker.member is not None
        }
        for gone in self._rates.keys() - told.keys():
            del self._rates[gone]
        return told

    def _log_rate(self, log: LogStatus, now_s: float) -> float:
        rate = self._log_rates[log.log]
        # While it is unknown how far the log goes it is not at 0: what is known next would be a leap.
        return rate.per_s if log.settled is None else rate.seen(log.settled, now_s)

    def _busy(self, worker: WorkerStatus, now_s: float) -> float:
        """Return the share of the time in which the lanes of its busiest projection have had something in hand."""
        rates = self._rates[worker.member]
        shares = [
            rates["busy", each.subscription].seen(int(1000 * each.busy_s), now_s) / 1000 / max(each.lanes, 1)
            for each in worker.projections
        ]
        return min(max(shares, default=0.0), 1.0)

    def _account(self, worker: WorkerStatus, logs: Mapping[LogName, LogAccount], now_s: float) -> Account:
        def told(each: ProjectionStatus) -> ProjectionAccount:
            rate = self._rates[worker.member]["events", each.subscription]
            return ProjectionAccount(each.held, each.behind, each.lag_s, rate.seen(each.events_handled, now_s))

        return Account(
            busy=self._busy(worker, now_s),
            version=version(),
            uptime_s=now_s - self._began_s,
            state=worker.state.value,
            logs=logs,
            projections={each.subscription: told(each) for each in worker.projections},
            standstills={each.subscription: each.standstill_s for each in worker.projections if each.standstill_s > 0},
        )


@cache
def version() -> str:
    """Return this package's version."""
    try:
        from importlib import metadata  # 10 ms that a start need not wait for

        return metadata.version("reactive_orch")
    except (ImportError, OSError):  # run from its sources, or no file to be had: a heartbeat goes on
        return "unknown"
