"""The configuration: one frozen value, made once, all complaints reported together.

Where a value comes from (options, environment, defaults) is decided by the command line; here it is checked, with the
relations between values, and a database address in any of its forms becomes a URI.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from reactive_orch.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


PORT_MAX = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What a process needs to know. Durations are in seconds, as the names say."""

    database_url: str
    """postgresql://… of the primary; several hosts are allowed."""
    batch_events: int = 100
    """Events handled in one transaction, at most. Larger: more throughput; smaller: less to do again after an error."""
    heartbeat_s: float = 2.0
    """How often a worker says that it lives."""
    stale_after_s: float = 10.0
    """Without a heartbeat for this long a worker is removed by the others. Safety does not depend on it."""
    retries: int = 5
    """How often a failing event is tried again before its worker stops."""
    handler_timeout_s: float = 60.0
    """One call of a handler may take this long, then its batch is rolled back."""
    grace_s: float = 30.0
    """How long a stop waits for batches in flight."""
    connections_max: int = 10
    """Connections for batches, per process: that many lanes work at the same moment."""
    rebalance_s: float = 60.0
    """A worker that has been adopting a generation for longer says that it is not ready."""
    trace_events: bool = False
    """A span for each event, besides the one for its batch: for looking closely, not for every day."""

    def __post_init__(self) -> None:
        """Raise ConfigError with everything that is wrong."""
        complaints = [text for broken, text in self._rules() if broken]
        if complaints:
            raise ConfigError("; ".join(complaints))

    def _rules(self) -> list[tuple[bool, str]]:
        return [
            (not 1 <= self.batch_events <= 100_000, f"--batch must be 1 to 100000, not {self.batch_events}"),
            (
                not 0.05 <= self.heartbeat_s <= 3600,
                f"--heartbeat must be 0.05 to 3600 seconds, not {self.heartbeat_s:g}",
            ),
            (
                not 3 * self.heartbeat_s <= self.stale_after_s + 1e-9,  # 3 * 0.1 is more than 0.3
                f"--stale-after ({self.stale_after_s:g} s) must be at least three heartbeats "
                f"({3 * self.heartbeat_s:g} s): one lost heartbeat is no death",
            ),
            (self.stale_after_s > 86_400, f"--stale-after must be at most a day (86400 s), not {self.stale_after_s:g}"),
            (not 0 <= self.retries <= 1000, f"--retries must be 0 to 1000, not {self.retries}"),
            (not 0 < self.handler_timeout_s <= 86_400, "handler_timeout_s must be positive and at most a day"),
            (not self.grace_s >= 0, "grace_s must not be negative"),
            (self.rebalance_s <= 0, "rebalance_s must be positive"),
            (not 1 <= self.connections_max <= 1000, "connections_max must be 1 to 1000"),
        ]


def database_url(text: str) -> str:
    """Return a database address as a URI: a postgresql:// URI as it is, or libpq's `key=value` words.

    Raises ConfigError when it is neither.
    """
    text = text.strip()
    if re.match(r"postgres(ql)?://", text):
        _check_uri(text)
        return text
    if re.match(r"\w+\s*=", text):
        return _uri_of(_words(text))
    msg = (
        "the database address is neither a URI (postgresql://user:password@host:5432/database) "
        "nor key=value words (host=… port=… user=… password=… dbname=…)"
    )
    raise ConfigError(msg)


def _check_uri(text: str) -> None:
    with contextlib.suppress(ValueError):
        hosts = urlsplit(text).netloc.rpartition("@")[2].split(",")  # urlsplit reads the port of a single one only
        if all(_is_port(re.sub(r"^\[.*?\]|^[^:]*", "", host).removeprefix(":")) for host in hosts):
            return
    # No part of the text is shown: it may be one of the password.
    msg = (
        "the database address is not a valid URI: it is written postgresql://user:password@host:5432/database, "
        f"with a port of at most {PORT_MAX}, and special characters of the password as %XX (/ as %2F, @ as %40)"
    )
    raise ConfigError(msg)


def _is_port(text: str) -> bool:
    return not text or (text.isdecimal() and 0 < int(text) <= PORT_MAX)


_WORD = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)(?=\s|$)")


def _words(text: str) -> dict[str, str]:
    words: dict[str, str] = {}
    at = 0
    while at < len(text.rstrip()):
        match = _WORD.match(text, at)
        if match is None:
            # The text is not shown: it may hold the password.
            msg = f"the database address cannot be read as key=value words from its character {at + 1} on"
            raise ConfigError(msg)
        words[match[1]] = re.sub(r"\\(.)", r"\1", match[2][1:-1] if match[2].startswith("'") else match[2])
        at = match.end()
    return words


def _uri_of(words: Mapping[str, str]) -> str:
    renamed = {"dbname": "database", "hostaddr": "host"}
    parameters = {renamed.get(key, key): value for key, value in words.items() if value}
    ports = parameters.get("port", "")
    if not all(map(_is_port, ports.split(","))):
        msg = f"the database's port must be a number from 1 to {PORT_MAX}, not {ports!r}"
        raise ConfigError(msg)
    parameters.pop("connect_timeout", None)  # asyncpg does not know this word, and connecting is bounded anyway
    if "host" in parameters:
        parameters["host"] = re.sub(r"(?<![^,])[\da-fA-F]*:[^,]*:[^,]*", r"[\g<0>]", parameters["host"])  # IPv6
    database = parameters.pop("database", "")
    return f"postgresql:///{quote(database, safe='')}?{urlencode(parameters, quote_via=quote)}"


def database_url_of_parts(environment: Mapping[str, str]) -> str | None:
    """Return the URI that POSTGRES_HOST, _PORT, _USER, _PASSWORD and _DB describe; None when none of them is set."""
    names = {"HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password", "DB": "dbname"}
    words = {word: environment.get(f"POSTGRES_{name}", "") for name, word in names.items()}
    if not any(words.values()):
        return None
    words["host"] = words["host"] or "localhost"
    return _uri_of(words)


def shown(url: str) -> str:
    """Return a database URI without its password, for people to read."""
    without = re.sub(r"(//[^:/?#@]*):[^/?#]*@", r"\1@", url)
    return re.sub(r"([?&]\w*password=)[^&]*", r"\1…", without)
