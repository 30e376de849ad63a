"""What is wrong with the server, with what stands between, or with the settings that workers meet there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reactive_orch.core.findings.made import finding
from reactive_orch.core.remedies import identifier, psql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reactive_orch.model.findings import Facts, LimitSeen
    from reactive_orch.model.problems import Level, Problem

OLDEST_VERSION = 15
"""Older servers lack what the schema uses."""
SOUND_LISTEN = {15: 15, 16: 11, 17: 7, 18: 1}
"""The first minor release of each version that does not fail LISTEN with "could not access status of transaction"."""

CLOCKS_APART_S = 5.0
"""Clocks that are set by the network differ by milliseconds."""
DIRECT = "give workers the address of the server itself"

_TIME_LIMITS = {
    "statement_timeout": "a handler's statement is ended after",
    "lock_timeout": "a handler's statement that waits for a lock is ended after",
    "transaction_timeout": "a batch is ended after",
    "idle_in_transaction_session_timeout": "a handler that says nothing to the database loses its connection after",
}


def of_hosts(facts: Facts) -> Iterator[Problem]:
    """Yield what is wrong with the hosts of the address."""
    for host in facts.hosts:
        if host.state == "silent":
            yield finding("warn", "host_silent", f"a host of the address does not answer: {host.url}: {host.why}")
    primaries = {host.server: host.url for host in facts.hosts if host.state == "primary"}
    if len(primaries) > 1:
        both = " and ".join(primaries.values())
        text = f"{both} both take writes: one is an old primary that has come back. Stop that one"
        yield finding("bad", "two_primaries", text)


def of_server(facts: Facts) -> Iterator[Problem]:
    """Yield what is wrong with the server itself."""
    yield from _of_version(facts)
    server = facts.server
    if server.standby:
        text = "the server is a standby: give the address of the primary, or all hosts in one URL"
        yield finding("bad", "standby", text)
    if server.read_only:
        text = f"transactions of {server.user} are read-only by default (default_transaction_read_only)"
        yield finding("bad", "read_only", text, command=_writable(facts))
    if abs(server.ahead_s) > CLOCKS_APART_S:
        apart = f"{abs(server.ahead_s):.0f} s {'ahead of' if server.ahead_s > 0 else 'behind'}"
        text = (
            f"the database's clock is {apart} this machine's: times in logs and traces do not fit together. "
            "Set both by the network (chrony, NTP)"
        )
        yield finding("warn", "clocks", text)
    if server.encoding != "UTF8":
        text = f"the database's encoding is {server.encoding}: text with other characters cannot be appended"
        yield finding("note", "encoding", text)
    if facts.collation is not None and facts.collation.recorded != facts.collation.actual:
        yield _collation_changed(facts)


def _of_version(facts: Facts) -> Iterator[Problem]:
    server = facts.server
    major, minor = divmod(server.version, 10_000)
    if major < OLDEST_VERSION:
        text = f"this is PostgreSQL {server.release}, and this program needs {OLDEST_VERSION} or newer"
        yield finding("bad", "version", text)
    elif minor < (sound := SOUND_LISTEN.get(major, 0)):
        text = (
            f"PostgreSQL {server.release} may refuse to listen (could not access status of transaction), and workers "
            f"poll then: update it to {major}.{sound} or newer"
        )
        yield finding("warn", "minor_version", text)


def _collation_changed(facts: Facts) -> Problem:
    assert facts.collation is not None
    was, now = facts.collation.recorded or "none", facts.collation.actual or "none"
    text = (
        f"the database was made with version {was} of its collation, and the system has {now}: indexes on text of "
        "your own tables may not find what is in them (those of reactive_orch do)"
    )
    database = identifier(facts.server.database)
    command = psql(f"REINDEX DATABASE {database}", f"ALTER DATABASE {database} REFRESH COLLATION VERSION")
    return finding("warn", "collation", text, command=command)


def of_session(facts: Facts) -> Iterator[Problem]:
    """Yield what a connection cannot do that workers need."""
    session = facts.session
    if session.refuses is not None:
        text = f"a pooler refuses what workers ask for when they connect ({session.refuses}): {DIRECT}"
        yield finding("bad", "pooler_refuses", text)
    if session.drops:
        text = f"a pooler drops what workers ask for when they connect ({', '.join(session.drops)}): {DIRECT}"
        yield finding("bad", "pooler_drops", text)
    broken = [
        words
        for words, works in (("LISTEN hears nothing", session.hears), ("locks of a session do not hold", session.locks))
        if works is False
    ]
    if broken:
        text = f"a connection is not one session: {', '.join(broken)}. A pooler in transaction mode, perhaps: {DIRECT}"
        yield finding("bad", "pooler_transactions", text)
    elif session.pooled:
        text = (
            f"a pooler stands between: its pool must have the {facts.per_process} connections that a worker's process "
            "may have (--connections), and it is one thing more that can fail. The server's own address is better"
        )
        yield finding("note", "pooler", text)


def _set(facts: Facts, setting: str, value: str) -> str:
    """Return the command that gives this role in this database a setting, which comes before all others."""
    return psql(_setting(facts, setting, value))


def _setting(facts: Facts, setting: str, value: str) -> str:
    role, database = identifier(facts.server.user), identifier(facts.server.database)
    return f"ALTER ROLE {role} IN DATABASE {database} SET {setting} = {value}"


def _writable(facts: Facts) -> str:
    """Return the command that lets this role write. The session that gives it would be read-only itself."""
    setting = "default_transaction_read_only"
    return psql(f"SET {setting} = off", _setting(facts, setting, "off"))


def of_time_limits(facts: Facts) -> Iterator[Problem]:
    """Yield the server's time-outs that end what handlers do before their own time-out does."""
    for name, does in _TIME_LIMITS.items():
        limit_ms = (facts.limits_ms or {}).get(name, 0)
        if 0 < limit_ms < facts.handler_timeout_s * 1000:
            after = f"{limit_ms} ms" if limit_ms % 1000 else f"{limit_ms // 1000} s"
            text = (
                f"{does} {after} ({name} of {facts.server.user}), though it may take {facts.handler_timeout_s:g} s "
                "(--handler-timeout)"
            )
            yield finding("warn", "time_limit", text, command=_set(facts, name, "0"))


def of_connections(facts: Facts) -> Iterator[Problem]:
    """Yield the limits of connections that are too low for the workers there are, or for a first one."""
    processes = max(len({each.name for each in facts.seen.workers if each.connected}) if facts.seen else 0, 1)
    for limit in facts.connections or ():
        left = max(limit.most - limit.others, 0)
        if left < processes * facts.per_process:
            level: Level = "bad" if left < processes * facts.per_process_least else "warn"
            whose = {
                "server": f"{limit.most} of the server's max_connections are for this user",
                "database": f"database {facts.server.database} has CONNECTION LIMIT {limit.most}",
                "role": f"role {facts.server.user} has CONNECTION LIMIT {limit.most}",
            }[limit.of]
            text = (
                f"too few connections: {whose}, and others use {limit.others}, so {left} are left for workers: "
                f"{processes} {'process' if processes == 1 else 'processes'} may have up to "
                f"{processes * facts.per_process} (--connections)"
            )
            yield finding(level, "connections", text, command=_more_connections(facts, limit, processes))


def _more_connections(facts: Facts, limit: LimitSeen, processes: int) -> str:
    needed = limit.others + (processes + 1) * facts.per_process
    if limit.of == "server":
        return psql(f"ALTER SYSTEM SET max_connections = {needed}") + "  # and restart the server"
    name = identifier(facts.server.database if limit.of == "database" else facts.server.user)
    return psql(f"ALTER {limit.of.upper()} {name} CONNECTION LIMIT {needed}")
