"""Names that people give."""

from __future__ import annotations

from reactive_orch.errors import ConfigError

NAME_BYTES_MAX = 63
"""PostgreSQL's limit for identifiers, kept for names that reach application_name, channels and metric labels."""


def check_name(what: str, name: str) -> None:
    """Raise ConfigError unless `name` has 1 to 63 bytes and only printable characters."""
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX or not name.isprintable():
        msg = f"{what} name {name!r}: give 1 to {NAME_BYTES_MAX} bytes of printable characters"
        raise ConfigError(msg)
