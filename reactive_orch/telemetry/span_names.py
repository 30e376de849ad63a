"""Every span and its attributes, as data: no other leaves this process.

No attribute holds a payload, a key, a parameter, an address or the text of an exception: errors are named by type or
SQLSTATE. `table` makes `otel/METRICS.md` from here, and tests hold it against what running workers send, both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

_RO = "reactive_orch."


@dataclass(frozen=True, slots=True, eq=False)
class SpanKind:
    """One kind of span. `{…}` in the name stands for the replica set, the projection or a reason."""

    name: str
    kind: str
    parent: str
    attributes: tuple[str, ...]
    meaning: str
    links: str = ""


_WHERE = (f"{_RO}replica_set", f"{_RO}generation", f"{_RO}member.id", f"{_RO}coordination")
_WHY = (f"{_RO}rebalance.reason", f"{_RO}rebalance.subject")
_MOVES = (f"{_RO}partitions.revoked", f"{_RO}partitions.gained", f"{_RO}partitions.kept")

REBALANCE = SpanKind(
    "rebalance {replica set}",
    "INTERNAL",
    "none: the root",
    (
        *_WHERE,
        *_WHY,
        *(
            f"{_RO}{k}"
            for k in ("generation.previous", "member.count", "partition.count", "partitions.moved", "wake.source")
        ),
        "error.type",
    ),
    "notice → commit of the generation, by the worker that wrote it; sent at once",
    "the previous generation's announcement (reactive_orch.link.type=previous)",
)
DETECT = SpanKind(
    "detect {death|stale}",
    "INTERNAL",
    "rebalance",
    (*_WHERE, *(f"{_RO}{k}" for k in ("rebalance.subject", "wake.source", "heartbeat.age", "detection.timeout"))),
    "notice of a lost member → commit of the generation without it",
)
OBSERVE = SpanKind("observe", "CLIENT", "rebalance, adopt", (*_WHERE, "db.system.name"), "the snapshot's statement")
PLAN = SpanKind(
    "plan assignment",
    "INTERNAL",
    "rebalance",
    (*_WHERE, f"{_RO}partitions.moved", f"{_RO}partitions.kept"),
    "the pure function that decides",
)
CHANGE = SpanKind(
    "change generation", "CLIENT", "rebalance", (*_WHERE, "db.system.name"), "the statement that writes it"
)
ANNOUNCE = SpanKind(
    "announce generation",
    "PRODUCER",
    "rebalance",
    _WHERE,
    "a moment, from which all workers follow: its traceparent is in the generation's row. As short as can be, since "
    "Jaeger takes a span that comes after its parent, and is not longer, for a sign of clocks that disagree",
)
ADOPT = SpanKind(
    "adopt {replica set}",
    "INTERNAL",
    "announce generation",
    (*_WHERE, *_MOVES, f"{_RO}wake.source", f"{_RO}partitions.ranges", f"{_RO}outcome"),
    "notice → acknowledged, one of each member; outcome acknowledged, superseded, failed",
)
FINISH = SpanKind(
    "finish batches",
    "INTERNAL",
    "adopt",
    (*_WHERE, f"{_RO}partitions.revoked", f"{_RO}partitions.in_flight"),
    "until no batch works on a lost partition and what was read is saved",
)
LOAD = SpanKind(
    "load checkpoints",
    "INTERNAL",
    "adopt",
    (*_WHERE, f"{_RO}partitions.gained", f"{_RO}wait.duration", f"{_RO}wait.longest_partition"),
    "until every gained checkpoint is loaded; the longest wait for a row that another worker's batch held",
)
ACKNOWLEDGE = SpanKind(
    "acknowledge", "CLIENT", "adopt", (*_WHERE, "db.system.name"), "the statement that records the adoption"
)
EXPELLED = SpanKind(
    "expelled {replica set}",
    "INTERNAL",
    "announce generation, if that generation removed it",
    _WHERE,
    "a worker that still lives finds itself removed",
    "its last adopt (reactive_orch.link.type=adopt)",
)
COMPLETE = SpanKind(
    "complete {replica set}",
    "INTERNAL",
    "announce generation",
    (
        *_WHERE,
        *_WHY,
        *(f"{_RO}{k}" for k in ("outcome", "member.count", "partitions.moved", "partitions.kept")),
        *(f"{_RO}{k}" for k in ("rebalance.slowest_member", "phase.notify.max", "phase.finish.max", "phase.load.max")),
    ),
    "created_at → completed_at, by the last member to acknowledge; superseded: by whoever wrote the next generation",
    "when superseded: the next generation's announcement (reactive_orch.link.type=superseded_by)",
)
PROCESS = SpanKind(
    "process {projection}",
    "CONSUMER",
    "none: a trace of its own",
    (
        *("messaging.system", "messaging.operation.name", "messaging.operation.type"),
        *("messaging.destination.name", "messaging.consumer.group.name"),
        *("messaging.batch.message_count", "error.type"),
        *(
            f"{_RO}{k}"
            for k in ("replica_set", "generation", "position.from", "position.to", "outcome", "links.dropped")
        ),
        f"{_RO}replayed",
        f"{_RO}event.age",
    ),
    "one batch: swap, handlers, commit; all that failed, of the others up to 20 a second of each process, unless "
    "OTEL_TRACES_SAMPLER says which",
    "up to 100 sampled producers: the traceparents in the events' metadata",
)
HANDLE = SpanKind(
    "handle {projection}",
    "INTERNAL",
    "process",
    (f"{_RO}event.position", f"{_RO}event.type", "messaging.message.id", "error.type"),
    "one event, only with --trace-events",
)
FRONTIER_WAIT = SpanKind(
    "wait for frontier",
    "INTERNAL",
    "none",
    (
        f"{_RO}coordination",
        f"{_RO}frontier.holders",
        f"{_RO}frontier.holder.pid",
        f"{_RO}frontier.holder.state",
        f"{_RO}position.to",
    ),
    "writers held the frontier for more than a second",
)
RECONNECT = SpanKind(
    "reconnect {kind}",
    "INTERNAL",
    "none",
    (f"{_RO}coordination", f"{_RO}connection.kind", "error.type"),
    "a lost membership connection, until it was back",
)

ATTRIBUTES: dict[str, str] = {
    f"{_RO}replica_set": "its name",
    f"{_RO}generation": "the generation that this is about; of a batch, the one that its worker had adopted",
    f"{_RO}member.id": "the worker that did this, by the number that `status` gives it; of `rebalance`: who decided",
    f"{_RO}coordination": "true of all but batches, so that a sampler can keep them",
    f"{_RO}rebalance.reason": "why: join, leave, death (its lock was let go), stale (no heartbeat), capability (other "
    "projections)",
    f"{_RO}rebalance.subject": "who it is about: numbers of workers, with commas; of capability nobody",
    f"{_RO}generation.previous": "the one that this follows",
    f"{_RO}member.count": "members, after it",
    f"{_RO}partition.count": "partitions of all projections together",
    f"{_RO}partitions.moved": "partitions that get another owner, or a first one",
    f"{_RO}partitions.kept": "those that do not; of `adopt` and `complete`: that were in hand already, and stay",
    f"{_RO}partitions.revoked": "partitions that this worker gives",
    f"{_RO}partitions.gained": "partitions that it takes",
    f"{_RO}partitions.ranges": "all that it is to have, by projection",
    f"{_RO}partitions.in_flight": "of those that it gives, how many were in a batch",
    f"{_RO}wake.source": "what made the worker look, as `told by` in `trace`: notify (a notification), watch (the lock "
    "of another worker was let go), heartbeat (the answer to its own), own (it goes on with what it has begun), work "
    "(its lanes have moved on), timer, start, reconnect, stop (it was asked to), accepted, given up (a filter)",
    f"{_RO}heartbeat.age": "how old the lost worker's last heartbeat was, in seconds",
    f"{_RO}detection.timeout": "its `--stale-after`, in seconds",
    f"{_RO}wait.duration": "how long another worker's batch held a gained checkpoint, at most, in seconds; a wait that "
    "began under an earlier generation may be longer than the span",
    f"{_RO}wait.longest_partition": "the partition of that",
    f"{_RO}outcome": "of `adopt`: acknowledged, superseded, failed; of `complete`: settled, superseded; of a batch "
    "that was rolled back: conflict, deadlock, unknown, error, cancelled",
    f"{_RO}rebalance.slowest_member": "the worker that was the last to acknowledge: its `adopt` has the phases",
    f"{_RO}phase.notify.max": "the longest time of a worker from commit to notice, in seconds",
    f"{_RO}phase.finish.max": "the same from notice until what it gives was let go",
    f"{_RO}phase.load.max": "the same from notice until what it takes was loaded",
    f"{_RO}position.from": "position of the first event",
    f"{_RO}position.to": "position of the last event; of `wait for frontier`: up to where the log is settled since",
    f"{_RO}links.dropped": "producers without a link, beyond 100",
    f"{_RO}replayed": "how many of the events had been handled before a `rewind`",
    f"{_RO}event.age": "of a committed batch: seconds from the append of its first event to its end, by the worker's "
    "clock",
    f"{_RO}event.position": "its position",
    f"{_RO}event.type": "its type",
    f"{_RO}frontier.holders": "transactions that held it",
    f"{_RO}frontier.holder.pid": "the oldest one's process at the server",
    f"{_RO}frontier.holder.state": "its state, as in `pg_stat_activity`",
    f"{_RO}connection.kind": "what the connection is for",
}
"""Attribute → what it says. Those without this package's prefix are OpenTelemetry's."""

SPANS: tuple[SpanKind, ...] = tuple(value for value in dict(vars()).values() if isinstance(value, SpanKind))
