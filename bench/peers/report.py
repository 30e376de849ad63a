"""What is said about it."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from bench.figures import median, percentile, spread, table
from bench.peers.contestants import OURS
from bench.peers.turns import EVENTS_PER_S, WRITERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.peers.contestants import Contestant
    from bench.peers.turns import Death, Latency, Throughput

DIFFERENCES = """
The job is not the same everywhere; what a figure buys differs:

- **reactive_orch** keeps the events. Any number of projections read them, each as often as it likes (`rewind`). Workers
  divide them by key, in order per key; what a handler writes through its transaction happens exactly once. A batch of up
  to 100 events is one transaction: that is where most of its throughput comes from, and an error rolls back its batch.
- **pgqueuer** and **procrastinate** are job queues: a job is for one consumer and is deleted (pgqueuer, which keeps a
  log of statuses) or marked as done (procrastinate). No replay, no second reader. No order per key as measured here;
  procrastinate can be given a lock per key, pgqueuer only a limit per kind of job. At least once: the effect of a job and its being done are
  two commits, and what lies between is done again after a crash. In return each job has its own retries, priority and
  due time, which a log has not.
- **eventsourcing** is nearest: a log with positions, and a view that records the position with its effects, exactly once,
  in order. One reader at a time for each projection: workers do not divide the work. Writers take turns (a table lock),
  which is how it never skips an event. Each event is a transaction of its own in the reader.

Effects outside the database happen at least once with all four.

One event is one commit of the writer, for all. An insert is done by each as its users would: reactive_orch and
eventsourcing in the transaction that moves the position, the queues through a pool of their own.
""".strip()


def text(
    contestants: Sequence[Contestant],
    seen: Throughput,
    delays: Latency,
    rates: Mapping[tuple[str, int], list[float]],
    found: Mapping[str, Death],
) -> str:
    """Return the section."""
    return "\n\n".join(
        [
            DIFFERENCES,
            "Settings:\n\n" + "\n".join(f"- {_versions(one)}: {one.settings}." for one in contestants),
            "Medians (least–greatest) of turns taken in one run on one server, each on a fresh database; `×` is "
            f"{OURS} against that row, turn by turn, more is better for {OURS}.",
            _throughput(contestants, seen),
            _two(contestants, seen),
            _latency(contestants, delays),
            _writing(contestants, rates),
            _deaths(contestants, found),
        ]
    )


def _versions(one: Contestant) -> str:
    return f"**{one.name}**" + (f" ({', '.join(one.requirements)})" if one.requirements else "")


def _throughput(contestants: Sequence[Contestant], seen: Throughput) -> str:
    ours = contestants[0]
    modes = ("noop", "insert")
    rows = [
        [one.name, *chain.from_iterable(_pair(seen.of(ours, mode, 1), seen.of(one, mode, 1)) for mode in modes)]
        for one in contestants
    ]
    batch = seen.of(ours, "insert_many", 1)
    rows.append([f"{OURS}, batch handler (one statement for many)", "", "", *_pair(seen.of(ours, "insert", 1), batch)])
    return "Events per second of one worker, a backlog committed at once in front of it:\n\n" + table(
        ["", "no-op", "×", "one INSERT per event", "×"], rows
    )


def _two(contestants: Sequence[Contestant], seen: Throughput) -> str:
    rows = []
    for one in contestants:
        single, double = seen.of(one, "insert", 1), seen.of(one, "insert", 2)
        gain = [b / a for a, b in zip(single, double, strict=True)]
        errors = ", ".join(sorted(seen.ended[one.name]))
        rows.append([one.name, spread(double, 0), spread(gain), f"one ends itself: {errors}" if errors else ""])
    return "The same INSERTs by two workers; they, the writer and the server share the machine's cores:\n\n" + table(
        ["", "events/s", "÷ one worker", ""], rows
    )


def _latency(contestants: Sequence[Contestant], delays: Latency) -> str:
    ours = [median(turn) for turn in delays.handled[OURS]]
    rows = []
    for one in contestants:
        together = list(chain.from_iterable(delays.handled[one.name]))
        append = median(list(chain.from_iterable(delays.appended[one.name])))
        shown = [*(percentile(together, share) for share in (0.5, 0.99)), max(together), append]
        ratios = [median(turn) / our for turn, our in zip(delays.handled[one.name], ours, strict=True)]
        rows.append([one.name, *(f"{ms:.2f}" for ms in shown), "1" if one.name == OURS else _times(ratios)])
    head = (
        "Milliseconds from the call that appends (or enqueues) and commits to the handler's being called, "
        f"{EVENTS_PER_S} events a second, one idle worker. The writer does not wait for the disk; how long its call takes "
        "is shown beside, as a handler may be called before the writer is told that it has committed:"
    )
    return f"{head}\n\n" + table(["", "p50", "p99", "worst", "the writer's call, p50", "× by p50"], rows)


def _writing(contestants: Sequence[Contestant], rates: Mapping[tuple[str, int], list[float]]) -> str:
    rows = [
        [one.name, *chain.from_iterable(_pair(rates[OURS, n], rates[one.name, n]) for n in WRITERS)]
        for one in contestants
    ]
    head = list(chain.from_iterable((f"{n} writer{'s' * (n > 1)}", "×") for n in WRITERS))
    return "Events per second appended (jobs enqueued), one commit each, while a worker is live:\n\n" + table(
        ["", *head], rows
    )


def _deaths(contestants: Sequence[Contestant], found: Mapping[str, Death]) -> str:
    rows = [[one.name, *_cells(found[one.name])] for one in contestants]
    head = (
        "SIGKILL of one of two workers that insert, in the middle of about four seconds of work. `held`: what the dead worker "
        "had taken and not finished, its share of the backlog where it has one. eventsourcing: its only reader is killed and "
        "started again at once, as a supervisor would; the figure is how long that takes. `lost`: no effect 90 s after."
    )
    return f"{head}\n\n" + table(
        ["", "events", "held", "lost", "handled twice", "first of the held handled elsewhere after", "all of them"],
        rows,
    )


def _cells(death: Death) -> list[str]:
    times = [_seconds(death.first_s), _seconds(death.last_s)]
    return [f"{death.events:,}", f"{death.held:,}", str(death.lost), str(death.twice), *times]


def _seconds(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def _pair(ours: Sequence[float], theirs: Sequence[float]) -> list[str]:
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return [spread(theirs, 0), "1" if ours is theirs else _times(ratios)]


def _times(ratios: Sequence[float]) -> str:
    return spread(ratios, 1)
