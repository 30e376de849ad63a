"""The operator's commands, a module each: each connects once, does one thing and ends; but `watch` goes on.

`run` is none of them: the worker. The other modules are their tools: `command`, `database`, `lines`, `loading`,
`problems`, `terminal`, `watch_picture`, `watch_terminal`, `waterfall`.
"""

from reactive_orch.commands.append import APPEND
from reactive_orch.commands.completion import COMPLETION
from reactive_orch.commands.dead_letters import DEAD_LETTERS
from reactive_orch.commands.doctor import DOCTOR
from reactive_orch.commands.grants import GRANTS
from reactive_orch.commands.migrate import MIGRATE
from reactive_orch.commands.pause import PAUSE, RESUME
from reactive_orch.commands.replica_sets import REPLICA_SETS
from reactive_orch.commands.rewind import REWIND
from reactive_orch.commands.status import STATUS
from reactive_orch.commands.stop_embedded import STOP_EMBEDDED
from reactive_orch.commands.trace import TRACE
from reactive_orch.commands.watch import WATCH

COMMANDS = {
    "migrate": MIGRATE,
    "append": APPEND,
    "status": STATUS,
    "watch": WATCH,
    "doctor": DOCTOR,
    "dead-letters": DEAD_LETTERS,
    "pause": PAUSE,
    "resume": RESUME,
    "rewind": REWIND,
    "replica-sets": REPLICA_SETS,
    "trace": TRACE,
    "grants": GRANTS,
    "stop-embedded": STOP_EMBEDDED,
    "completion": COMPLETION,
}
"""What `python -m reactive_orch WORD` does."""

__all__ = ["COMMANDS"]
