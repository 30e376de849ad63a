"""Connections that the server refuses: whose limit it is, and whether that is so now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from reactive_orch.errors import TooManyConnections

if TYPE_CHECKING:
    import asyncpg

LASTS_S = 15.0
"""After the last refusal. Whoever needs a connection tries again within 5 s; afterwards nobody needs one."""
LATELY_S = 600.0
"""For so long after a refusal what nobody uses is closed sooner: another process may have nothing at all."""

_LIMITS = {
    "InitializeSessionUserId": "the role has as many connections as its CONNECTION LIMIT allows: ALTER ROLE raises it",
    "CheckMyDatabase": "the database has as many connections as its CONNECTION LIMIT allows: ALTER DATABASE raises it",
}
"""By the function of the server that refuses: its words may be in any language."""
_SERVER = "the server has no connection left: see who has them (pg_stat_activity), or raise max_connections"


class Shortage:
    """Whether connections of one process are refused."""

    def __init__(self) -> None:
        """Start without one."""
        self.needs = ""
        """How many connections would do, in words."""
        self._text: str | None = None
        self._refused_at = float("-inf")

    @property
    def text(self) -> str | None:
        """Whose limit it is, and what to do; None if no connection has been refused of late."""
        return self._text if time.monotonic() - self._refused_at < LASTS_S else None

    @property
    def was_lately(self) -> bool:
        """Whether there was one in the last minutes."""
        return time.monotonic() - self._refused_at < LATELY_S

    def refused(self, error: asyncpg.TooManyConnectionsError) -> TooManyConnections:
        """Note that a connection was refused; return what to raise."""
        limit = _LIMITS.get(str(error.server_source_function), _SERVER)
        self._text = f"{limit}; {self.needs}" if self.needs else limit
        self._refused_at = time.monotonic()
        return TooManyConnections(self._text)
