"""What the pages of health say, from memory."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from reactive_orch.core.health import Health, assess
from reactive_orch.core.overview_json import problem_as_json, since
from reactive_orch.model import OWN_LOG

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reactive_orch.model import Subscription
    from reactive_orch.runtime.node import Node
    from reactive_orch.runtime.worker import Worker


def health(node: Node, worker: Worker) -> tuple[Health, Mapping[str, Any]]:
    """Return the health of a worker, and the JSON object that each of the three pages of health shows."""
    facts = worker.facts()
    judged = assess(facts)
    own = node.logs.get(OWN_LOG)
    told = partial(since, datetime.now(UTC))
    return judged, {
        "status": worker.state.value,
        "health": judged.word,
        "reasons": judged.reasons,
        "problems": [problem_as_json(node.problems.dated(each), told) for each in judged.problems],
        "age_s": round(facts.age_s, 3),
        "replica_set": worker.replica_set,
        "worker": worker.member,
        "generation": worker.generation,
        "partitions": _by_projection({each: len(held) for each, held in worker.partitions.items()}),
        "events_handled": _by_projection(worker.events_handled),
        "settled_position": own.settled if own else None,
        "frontier_held_s": round(facts.frontier_held_s, 3),
    }


def health_of_all(workers: Sequence[Worker]) -> tuple[Health, Mapping[str, Any]]:
    """Return the health of these workers together, and a JSON object that has one for each."""
    each = [health(worker.node, worker) for worker in workers]
    judged = [health for health, _ in each]
    of_all = Health(
        live=all(one.live for one in judged),
        ready=all(one.ready for one in judged),
        well=all(one.well for one in judged),
        problems=tuple(problem for one in judged for problem in one.problems),
    )
    return of_all, {"health": of_all.word, "workers": [body for _, body in each]}


def _by_projection(numbers: Mapping[Subscription, int]) -> Mapping[str, int]:
    """Return the sums over the logs that a projection reads."""
    sums: Counter[str] = Counter()
    for subscription, number in numbers.items():
        sums[subscription.projection] += number
    return sums
