"""From what a look at a database has brought back to what will not work on it, worst first, each with what helps."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from reactive_orch.core.findings import holding, schema, server
from reactive_orch.core.findings.made import finding
from reactive_orch.core.overview import overview
from reactive_orch.core.problems import problems, worst_first
from reactive_orch.core.remedies import ours

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.model.findings import Facts
    from reactive_orch.model.overview import ReplicaSetOverview
    from reactive_orch.model.problems import Problem

FORGOTTEN_AFTER_S = 7 * 86_400.0
"""A replica set that nobody has worked for since is perhaps gone for good."""

OF_STATUS = {"log_refused", "log_held", "no_workers", "halted", "stands_still", "unserved"}
"""Problems of `status` that are findings, too, unless they are but a note."""

_RULES = (
    server.of_hosts,
    server.of_server,
    server.of_session,
    server.of_time_limits,
    server.of_connections,
    schema.of_schema,
    schema.of_rights,
    schema.of_parts,
    schema.of_checkpoints,
    holding.of_locks,
    holding.of_log_end,
    holding.of_open,
    holding.of_slots,
    holding.of_queue,
)


def findings(facts: Facts) -> list[Problem]:
    """Return all that there are, the worst first, the oldest of each level first."""
    return worst_first(chain(*(rule(facts) for rule in _RULES), _of_status(facts), _of_unknown(facts)))


def is_well(found: list[Problem]) -> bool:
    """Tell whether there is nothing that somebody should do something about."""
    return all(each.level == "note" for each in found)


def looked_at(facts: Facts) -> str:
    """Return in a line what was looked at."""
    where = facts.server
    free = [each.most - each.others - each.ours for each in facts.connections or ()]
    left = f" ({max(min(free), 0)} are left)" if free else ""
    there = facts.schema is not None and facts.schema.complaint is None
    step = f", schema step {facts.schema.step}" if facts.schema is not None and there else ""
    tables = (facts.indexes, facts.triggers, facts.guarded, facts.checkpoints)
    looked = {
        "the server": True,
        "what stands between": True,
        "settings": facts.limits_ms is not None,
        f"connections{left}": facts.connections is not None,
        "clocks": True,
        "rights": facts.rights is not None,
        "tables": None not in tables,
        "the log and what holds it back, replica sets": facts.seen is not None or facts.refusal is not None,
        "nothing that the schema holds": not there,
    }
    seen = ", ".join(what for what, was in looked.items() if was)
    return f"looked at database {where.database} on PostgreSQL {where.release} as {where.user}{step}: {seen}"


def _of_status(facts: Facts) -> Iterator[Problem]:
    if facts.refusal is not None:
        yield finding("bad", "log_refused", facts.refusal)
    if facts.seen is not None:
        shown = overview(facts.seen)
        told = OF_STATUS - {"log_refused"} if facts.server.standby else OF_STATUS  # it is refused for being one
        yield from (each for each in problems(shown) if each.code in told and each.level != "note")
        yield from (problem for each in shown.replica_sets for problem in _forgotten(each))


def _forgotten(each: ReplicaSetOverview) -> Iterator[Problem]:
    if each.generation is None or any(worker.seen.connected for worker in each.workers):
        return
    idle_s = min([each.generation.age_s, *(worker.seen.heartbeat_age_s for worker in each.workers)])
    if idle_s > FORGOTTEN_AFTER_S:
        text = (
            f"replica set {each.name}: no worker for {idle_s / 86_400:.0f} days. If it is gone for good, forget it: "
            "until then the log counts as needed from where it stands"
        )
        yield finding(
            "warn", "forgotten", text, age_s=idle_s, command=ours("replica-sets remove", replica_set=each.name)
        )


def _of_unknown(facts: Facts) -> Iterator[Problem]:
    if facts.unknown:
        text = f"not known, as {facts.server.user} may not ask: {', '.join(facts.unknown)}"
        yield finding("note", "not_known", text)
