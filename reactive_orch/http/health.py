"""What the pages of health say, from memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reactive_orch.core.health import Verdict, assess

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reactive_orch.runtime.node import Node
    from reactive_orch.runtime.worker import Worker


def health(node: Node, worker: Worker) -> tuple[Verdict, Mapping[str, Any]]:
    """Return the verdict on a worker, and what the three pages of health say."""
    facts = worker.facts()
    verdict = assess(facts)
    return verdict, {
        "status": worker.state.value,
        "health": verdict.word,
        "reasons": verdict.reasons,
        "age_s": round(facts.age_s, 3),
        "replica_set": worker.replica_set,
        "worker": worker.member,
        "generation": worker.generation,
        "partitions": {name: len(held) for name, held in worker.partitions.items()},
        "events_handled": dict(worker.events_handled),
        "settled_position": node.follower.settled,
        "frontier_held_s": round(node.follower.held_s, 3),
    }
