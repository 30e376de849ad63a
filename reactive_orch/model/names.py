"""Names that people give."""

from __future__ import annotations

from reactive_orch.errors import ConfigError

NAME_BYTES_MAX = 63
"""PostgreSQL's limit for identifiers, kept for names that reach application_name, channels and metric labels."""


def check_name(what: str, name: object) -> None:
    """Raise ConfigError unless `name` is text, has 1 to 63 bytes and only printable characters."""
    if not isinstance(name, str):
        msg = f"{what} name must be text, not {name!r}"
        raise ConfigError(msg)
    if not name.isprintable() or not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        msg = f"{what} name {name!r}: give 1 to {NAME_BYTES_MAX} bytes of printable characters"
        raise ConfigError(msg)


def printable(text: str) -> str:
    """Return a text that holds values of events as a terminal may get it: what would steer that is escaped."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
