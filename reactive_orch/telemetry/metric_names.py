"""Every metric and its attributes, as data: no other leaves this process.

No attribute is unbounded: no generation, member, event, partition or text of an error (errors are named by type or
SQLSTATE). `table` makes `otel/METRICS.md` from here, and tests hold it against what running workers send, both ways.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, get_args

from reactive_orch.model import OWN_LOG, MemberState, Reason
from reactive_orch.model.membership import RestingState
from reactive_orch.model.problems import CODES

if TYPE_CHECKING:
    from collections.abc import Mapping

SCOPE = "reactive_orch"

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The buckets that the semantic conventions advise for durations."""
QUICK_SECONDS = (0.0005, 0.001, 0.0025, *SECONDS)
REBALANCE_SECONDS = (*SECONDS, 30.0, 60.0)
AGE_SECONDS = (0.001, 0.0025, *SECONDS, 60.0, 600.0, 3600.0)
COUNTS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)


class Kind(enum.Enum):
    """The instrument."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One instrument. `attributes` are the keys whose values every measurement gives, in this order."""

    name: str
    kind: Kind
    unit: str
    attributes: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = SECONDS
    constants: Mapping[str, str] = field(default_factory=dict)
    """Attributes that are the same in every measurement."""
    known: tuple[tuple[str, ...], ...] = ((),)
    """What its last attributes can be, where that is few and fixed. Before them come those of a scope, if any."""

    @property
    def keys(self) -> frozenset[str]:
        """All its attributes."""
        return frozenset((*self.attributes, *self.constants))

    @property
    def of_replica_set(self) -> bool:
        """Whether it is of a replica set, or of a projection there; else it is of the process."""
        return self.attributes[:1] == ("replica_set",)

    @property
    def prometheus(self) -> str:
        """Its name in Prometheus: the unit and _total appended as the OpenTelemetry specification says."""
        unit = {"s": "_seconds", "1": "_ratio"}.get(self.unit, "")
        return self.name.replace(".", "_") + unit + ("_total" if self.kind is Kind.COUNTER else "")


_SET = "replica_set"
_REASONS = tuple((reason.value,) for reason in Reason)
_LOG = "log"
_OF = (_SET, "projection", _LOG)
_GROUP = "messaging.consumer.group.name"
_DESTINATION = "messaging.destination.name"
_PROCESS = {"messaging.system": SCOPE, "messaging.operation.name": "process"}
_RECEIVE = {"messaging.system": SCOPE, "messaging.operation.name": "receive"}
_SEND = {"messaging.system": SCOPE, "messaging.operation.name": "send", "messaging.destination.name": OWN_LOG}
_POOL = "db.client.connection.pool.name"

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_RO = "reactive_orch."

# Handling.
HANDLING_DURATION = Metric(
    "messaging.process.duration",
    _H,
    "s",
    (_SET, _GROUP, _DESTINATION, "error.type"),
    "one batch: swap, handlers, commit; error.type is empty when it was committed",
    QUICK_SECONDS,
    _PROCESS,
)
READ_DURATION = Metric(
    "messaging.client.operation.duration",
    _H,
    "s",
    (_SET, _GROUP, _DESTINATION),
    "one window read",
    QUICK_SECONDS,
    _RECEIVE,
)
EVENTS_HANDLED = Metric(
    "messaging.client.consumed.messages",
    _C,
    "{message}",
    (_SET, _GROUP, _DESTINATION),
    "events in committed batches",
    constants=_PROCESS,
)
EVENTS_APPENDED = Metric(
    "messaging.client.sent.messages", _C, "{message}", (), "events appended by this process", constants=_SEND
)
BATCHES = Metric(
    f"{_RO}batches",
    _C,
    "{batch}",
    (*_OF, "outcome"),
    "batches by outcome: conflict, deadlock: rolled back, done again; unknown: a lost connection; error: a handler's",
    known=(("committed",), ("conflict",), ("deadlock",), ("unknown",), ("error",), ("cancelled",)),
)
BATCH_SIZE = Metric(f"{_RO}batch.size", _H, "{event}", _OF, "events per committed batch", COUNTS)
PROJECTION_ERRORS = Metric(
    f"{_RO}projection.errors", _C, "{error}", (*_OF, "error.type"), "failed attempts of handlers"
)
EVENT_AGE = Metric(
    f"{_RO}event.age",
    _H,
    "s",
    _OF,
    "from the append of a committed batch's first event to its commit, by the worker's clock",
    AGE_SECONDS,
)
LAG = Metric(
    f"{_RO}projection.lag", _G, "{event}", _OF, "positions between the settled end of the log and the slowest partition"
)
LAG_TIME = Metric(
    f"{_RO}projection.lag.time",
    _G,
    "s",
    _OF,
    "age of the oldest event that is not handled yet, by the worker's clock; 0 at the settled end of the log",
)
STANDSTILL = Metric(
    f"{_RO}projection.standstill.time",
    _G,
    "s",
    _OF,
    "for how long settled events have waited while no checkpoint moved and no handler ran; 0 when it gets on",
)
UNSERVED = Metric(
    f"{_RO}projection.unserved",
    _G,
    "{projection}",
    _OF,
    "1 while no worker of the replica set runs the projection and it does not rest, as this worker sees it",
)
RESTING = Metric(
    f"{_RO}projection.resting",
    _G,
    "{projection}",
    (*_OF, "state"),
    "1 for the way in which the projection rests, on all its workers, as this one sees it; 0 for the others",
    known=tuple((state,) for state in get_args(RestingState)),
)
ONE_AT_A_TIME = Metric(
    f"{_RO}projection.one_at_a_time",
    _G,
    "{projection}",
    _OF,
    "1 while the batches of the projection go one at a time, on all its workers, since handlers have deadlocked",
)
FAILING_KEYS = Metric(
    f"{_RO}projection.failing_keys",
    _G,
    "{key}",
    _OF,
    "keys of this worker's partitions of which an event has failed: all later events of the key wait behind it",
)
OWNED = Metric(
    f"{_RO}partition.status",
    _G,
    "{partition}",
    (*_OF, "status"),
    "partitions of this worker: awaited is assigned, its row still held elsewhere; leaving is in a last batch",
    known=(("owned",), ("awaited",), ("leaving",)),
)

PROBLEM = Metric(
    f"{_RO}problem",
    _G,
    "{problem}",
    (*_OF, "level", "code"),
    "1 while this process knows of the problem, and no series else; docs/operations.md says what each code means",
    known=tuple((code,) for code in CODES),
)

# Rebalancing.
GENERATION = Metric(f"{_RO}generation", _G, "{generation}", (_SET,), "the generation this worker has seen last")
GENERATION_SETTLED = Metric(
    f"{_RO}generation.settled", _G, "{generation}", (_SET,), "the last one this worker has seen settled"
)
MEMBERS = Metric(
    f"{_RO}member.count",
    _G,
    "{member}",
    (_SET, "state"),
    "members as this worker sees them",
    known=tuple((state.value,) for state in MemberState),
)
PARTITIONS = Metric(
    f"{_RO}partition.count",
    _G,
    "{partition}",
    (_SET,),
    "partitions that the present generation assigns, all projections",
)
WORKER_STATE = Metric(
    f"{_RO}worker.state", _G, "{state}", (_SET, "state"), "1 for the state this worker is in, 0 for the others"
)
GENERATIONS = Metric(
    f"{_RO}generations",
    _C,
    "{generation}",
    (_SET, "reason"),
    "generations written by this worker",
    known=_REASONS,
)
PARTITIONS_MOVED = Metric(
    f"{_RO}partitions.moved",
    _C,
    "{partition}",
    (_SET, "reason"),
    "partitions moved by the generations it wrote",
    known=_REASONS,
)
REGISTRATIONS = Metric(f"{_RO}registrations", _C, "{member}", (_SET,), "times this worker asked to be a member")
ASSIGNMENTS = Metric(f"{_RO}assignments", _C, "{partition}", (_SET,), "partitions this worker was given by adoptions")
RECONFIGURATIONS = Metric(
    f"{_RO}reconfigurations",
    _C,
    "{generation}",
    (_SET, "outcome"),
    "generations this worker has begun to adopt, by how that ended",
    known=(("acknowledged",), ("superseded",), ("failed",)),
)
EXPULSIONS = Metric(
    f"{_RO}member.expulsions",
    _C,
    "{member}",
    (_SET, "source"),
    "workers removed by this one without their doing, by what told: a free lock (dead), no heartbeat (stale)",
    known=(("lock",), ("heartbeat",)),
)
ADOPTION_DURATION = Metric(
    f"{_RO}adoption.duration",
    _H,
    "s",
    (_SET,),
    "coordination on one worker: a generation noticed to acknowledged",
    REBALANCE_SECONDS,
)
REBALANCE_DURATION = Metric(
    f"{_RO}rebalance.duration",
    _H,
    "s",
    (_SET, "reason", "outcome"),
    "a generation written to settled, or to superseded; by the last to acknowledge or the one who overtook",
    REBALANCE_SECONDS,
    known=tuple((*reason, outcome) for reason in _REASONS for outcome in ("settled", "superseded")),
)
PHASE_DURATION = Metric(
    f"{_RO}rebalance.phase.duration",
    _H,
    "s",
    (_SET, "phase"),
    "phases of an adoption: notify (written to noticed), finish (batches of lost partitions), load (gained ones)",
    REBALANCE_SECONDS,
    known=(("notify",), ("finish",), ("load",)),
)
DETECTION_DURATION = Metric(
    f"{_RO}detection.duration",
    _H,
    "s",
    (_SET, "source"),
    "from the first notice of a lost member to the commit of the generation without it",
    QUICK_SECONDS,
    known=(("lock",), ("heartbeat",)),
)

# Waking and connections.
WAKE_UPS = Metric(
    f"{_RO}wakeups",
    _C,
    "{wakeup}",
    ("loop", "source"),
    "wake-ups of the loops: turn looks at the replica set, tail at the log",
    known=(
        *(("turn", s) for s in ("start", "notify", "heartbeat", "watch", "reconnect", "work", "own", "timer", "stop")),
        *(("tail", s) for s in ("notify", "work", "timer")),
    ),
)
NOTIFICATIONS = Metric(
    f"{_RO}notifications",
    _C,
    "{notification}",
    ("channel", "outcome"),
    "notifications heard: coalesced while a wake-up was due anyway, ignored if of another replica set",
    known=(("events", "used"), ("events", "coalesced"), ("generations", "used"), ("generations", "ignored")),
)
NOTIFICATION_QUEUE = Metric(
    f"{_RO}notification_queue.utilization", _G, "1", (), "how full the server's notification queue is"
)
LISTENER_AGE = Metric(f"{_RO}listener.age", _G, "s", (), "age of the connection that listens; 0 while there is none")
RECONNECTS = Metric(
    f"{_RO}connection.reconnects",
    _C,
    "{reconnect}",
    ("kind",),
    "connections made anew, outside the pools",
    known=(("membership",), ("watch",), ("tail",)),
)
INTERRUPTIONS = Metric(
    f"{_RO}interruptions",
    _C,
    "{interruption}",
    ("place", "error.type"),
    "errors that a loop passed over to try again: lane, read ahead, share (taking and giving partitions), answer (to "
    "who waits), turn (looks at the replica set), register, warm up, leave, tail (looks at the log), watch, membership",
)
HEARTBEAT_DURATION = Metric(
    f"{_RO}heartbeat.duration",
    _H,
    "s",
    ("outcome",),
    "one heartbeat: late found its row locked, lost ended the connection",
    QUICK_SECONDS,
    known=(("ok",), ("late",), ("lost",)),
)
FRONTIER = Metric(f"{_RO}frontier.position", _G, "{event}", (_LOG,), "how far the log is settled")
FRONTIER_AGE = Metric(
    f"{_RO}frontier.lag.time", _G, "s", (_LOG,), "for how long writers have held the frontier; 0 when free"
)
FRONTIER_HOLDERS = Metric(
    f"{_RO}frontier.holders",
    _G,
    "{transaction}",
    (_LOG, "kind"),
    "transactions the frontier waits for (the log and `status` name them)",
    known=(("running",), ("prepared",)),
)
LOOP_DELAY = Metric(
    f"{_RO}event_loop.delay", _H, "s", (), "by how much the event loop was late, looked at four times a second", SECONDS
)
POOL_CONNECTIONS = Metric(
    "db.client.connection.count",
    _G,
    "{connection}",
    (_POOL, "db.client.connection.state"),
    "pooled connections",
    known=(("used",), ("idle",)),
)
POOL_WAIT = Metric(
    "db.client.connection.wait_time", _H, "s", (_POOL,), "how long a connection of a pool was waited for", QUICK_SECONDS
)
STATEMENT_DURATION = Metric(
    "db.client.operation.duration",
    _H,
    "s",
    ("db.operation.name",),
    "the statements of coordination, those only",
    QUICK_SECONDS,
    {"db.system.name": "postgresql"},
    known=(("observe",), ("change",), ("acknowledge",)),
)

METRICS: tuple[Metric, ...] = tuple(value for value in dict(vars()).values() if isinstance(value, Metric))
