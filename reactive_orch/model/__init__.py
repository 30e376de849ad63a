"""The vocabulary: events, projections, members, generations. Values only, no I/O.

Terms are those of the documentation and of every log line: a *replica set* is the group of *workers* that divide the
logs among themselves; a worker that has joined is a *member*; each change of members or assignment makes a
*generation*; a log is divided into *partitions*; a *projection* has one *checkpoint* for each partition of its log.
"""

from reactive_orch.model.checkpoints import Checkpoint, Swap
from reactive_orch.model.events import Event, Expected, NewEvent
from reactive_orch.model.handlers import BatchHandler, EventHandler, Handler, Middleware
from reactive_orch.model.hooks import Hooks
from reactive_orch.model.log import (
    OWN_LOG,
    FrontierKind,
    Holder,
    Log,
    LogName,
    LogState,
    Partition,
    Position,
    Subscription,
    TableLock,
    Window,
)
from reactive_orch.model.membership import (
    NOBODY,
    Acknowledged,
    Adopted,
    AdoptionSteps,
    Change,
    Member,
    MemberId,
    MemberState,
    Owners,
    Reason,
    Snapshot,
    Turn,
    WorkerState,
    Written,
    seconds,
)
from reactive_orch.model.middleware import subject
from reactive_orch.model.names import NAME_BYTES_MAX, check_name
from reactive_orch.model.projections import (
    Filter,
    OnError,
    Projection,
    ResetHook,
    projection,
)

__all__ = [
    "NAME_BYTES_MAX",
    "NOBODY",
    "OWN_LOG",
    "Acknowledged",
    "Adopted",
    "AdoptionSteps",
    "BatchHandler",
    "Change",
    "Checkpoint",
    "Event",
    "EventHandler",
    "Expected",
    "Filter",
    "FrontierKind",
    "Handler",
    "Holder",
    "Hooks",
    "Log",
    "LogName",
    "LogState",
    "Member",
    "MemberId",
    "MemberState",
    "Middleware",
    "NewEvent",
    "OnError",
    "Owners",
    "Partition",
    "Position",
    "Projection",
    "Reason",
    "ResetHook",
    "Snapshot",
    "Subscription",
    "Swap",
    "TableLock",
    "Turn",
    "Window",
    "WorkerState",
    "Written",
    "check_name",
    "projection",
    "seconds",
    "subject",
]
