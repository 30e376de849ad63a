"""Which database a command works on."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from reactive_orch.address import database_url, database_url_of_libpq, database_url_of_parts, user_of
from reactive_orch.errors import ConfigError
from reactive_orch.process.abandonable import abandonable
from reactive_orch.process.streams import say

if TYPE_CHECKING:
    from collections.abc import Mapping


def role_of(given: str | None, environment: Mapping[str, str]) -> str:
    """Return the role that a command comes as; the embedded server's knows no other than its owner."""
    named = _named(given, environment)
    return "postgres" if named is None else user_of(named, environment)


def _named(given: str | None, environment: Mapping[str, str]) -> str | None:
    """Return the URI of the database that somebody has named. Raises ConfigError for what is no address."""
    given = environment.get("DATABASE_URL") or None if given is None else given
    if given is not None:
        return database_url(given, environment)
    return database_url_of_parts(environment) or database_url_of_libpq(environment)


async def database_of(given: str | None, environment: Mapping[str, str]) -> tuple[str, bool]:
    """Return a database's URI, and whether that is the embedded server's.

    It is the one given, else that of DATABASE_URL, else that of POSTGRES_HOST and its like, else that of libpq's PGHOST
    and its like, else the embedded server's.

    Raises ConfigError for what is no address, and for a DATABASE_URL that is empty where nothing else says one: that is
    a secret that is missing, and not the wish for an embedded server. Unavailable when that does not start.
    """
    named = _named(given, environment)
    if named is not None:
        return named, False
    if "DATABASE_URL" in environment:
        msg = "DATABASE_URL is set, but empty: give it an address, or unset it for the embedded server"
        raise ConfigError(msg)
    from reactive_orch.embedded import server as embedded

    # A signal need not wait for it: the server's programs go on, and the next start finds what they have made.
    return await abandonable(partial(embedded.start, say=say)), True


async def started_again(url: str) -> bool:
    """Start the embedded server if this is its URI: it may be stopped just after it was found running.

    Returns whether it is. Raises what `database_of` raises.
    """
    from reactive_orch.embedded import server as embedded

    try:
        its = embedded.uri(embedded.data_directory())
    except ConfigError:
        return False
    if url == its:
        await abandonable(partial(embedded.start, say=say))
    return url == its
