"""From an address to a connection that leads to the primary, and says to which.

An address may name several hosts, and each has a time of its own: one that accepts and is silent, frozen or half dead,
must not hide the primary. The host that answered last is asked first, and the others with it when it is late; and they
are asked again while it is silent, as one of them may be promoted just because it is. Of several that call themselves
the primary the one promoted last is taken: the other is an old one that has come back.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlencode

import asyncpg

from reactive_orch.config import shown
from reactive_orch.errors import ConfigError, Rejected, Unavailable
from reactive_orch.incarnation import Server
from reactive_orch.postgres.faults import Kind, classify, one_line
from reactive_orch.postgres.statements import load_statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import TypeAlias

    from reactive_orch.postgres.connection import AnyConnection, BatchConnection

    _Attempt: TypeAlias = asyncio.Task[tuple[str, BatchConnection]]

CONNECT_TIMEOUT_S = 5.0
"""How long each host has to answer."""
HEAD_START_S = 0.5
"""How long the host that answered last is asked alone."""
AGAIN_S = 0.5
"""While a host is silent: how long before those are asked again that have answered, but were no primary."""
RIVALS_S = 0.25
"""When all hosts are asked and one has answered: how long the others have to show that they were promoted later."""

_OF_THE_LOGIN = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
_NO_TLS = "rejected SSL upgrade"
_CLOSED = "unexpected connection_lost() call"
"""asyncpg's words."""
_REFUSALS = (
    *_OF_THE_LOGIN,
    asyncpg.PostgresConnectionError,  # a pooler's, for the same
)
"""Of the server: there is no such user or database, or the password is another one."""

_SQL = load_statements(Path(__file__).with_suffix(".sql"))
_URL = re.compile(r"(postgres(?:ql)?://(?:[^/?#]*@)?)([^@/?#]*)([^?#]*)(.*)", re.DOTALL)


def each_host(url: str) -> tuple[str, ...]:
    """Return a URL for each host that a URL names; the URL itself when it names one, or none."""
    match = _URL.fullmatch(url)
    if match is None:
        return (url,)
    before, hosts, path, query = match.groups()
    if "," in hosts:
        return tuple(f"{before}{host}{path}{query}" for host in hosts.split(","))
    words = dict(parse_qsl(query.removeprefix("?")))
    names, ports = words.get("host", "").split(","), words.get("port", "").split(",")
    if hosts or len(names) == 1 or len(ports) not in {1, len(names)}:
        return (url,)
    ports = ports if len(ports) == len(names) else ports * len(names)
    pairs = zip(names, ports, strict=True)
    return tuple(f"{before}{path}?{urlencode(words | _host_words(*pair))}" for pair in pairs)


def _host_words(host: str, port: str) -> dict[str, str]:
    return {"host": host, "port": port} if port else {"host": host}


class Connector:
    """Opens connections to one database, wherever its primary is."""

    def __init__(self, url: str) -> None:
        """Open nothing yet."""
        self._urls = each_host(url)
        self._last: str | None = None
        self._late: set[_Attempt] = set()

    async def open(self, **arguments: Any) -> BatchConnection:
        """Return a new connection that has told where it leads.

        Raises what asyncpg raises, but Unavailable, with the address, where asyncpg raises an OSError or a refusal.
        Raises ConfigError when a pooler answers that is of no use.
        """
        if len(self._urls) == 1:
            return (await _open(url=self._urls[0], arguments=arguments))[1]
        attempts: dict[_Attempt, str] = {}
        chosen: _Attempt | None = None
        try:
            chosen = await self._ask(attempts, arguments)
            self._last, connection = chosen.result()
            return connection
        finally:
            self._late.update(attempts)
            for attempt in attempts:
                attempt.add_done_callback(self._late.discard if attempt is chosen else self._discard)

    async def _ask(self, attempts: dict[_Attempt, str], arguments: dict[str, Any]) -> _Attempt:
        def ask(*urls: str) -> None:
            attempts.update({asyncio.create_task(_open(url, arguments)): url for url in urls})

        if self._last is not None:
            ask(self._last)
            await asyncio.wait(attempts, timeout=HEAD_START_S)
        if not any(map(_is_open, attempts)):
            # Not by `_last`: another attempt may have found another one meanwhile.
            ask(*(url for url in self._urls if url not in attempts.values()))
            await _until_one_is_open(attempts, ask)
            await asyncio.wait(attempts, timeout=RIVALS_S)
        return _best(attempts)

    def _discard(self, attempt: _Attempt) -> None:
        self._late.discard(attempt)
        if _is_open(attempt):
            attempt.result()[1].terminate()


async def _open(url: str, arguments: dict[str, Any]) -> tuple[str, BatchConnection]:
    try:
        connection = cast("BatchConnection", await asyncpg.connect(url, **arguments))
    except (OSError, *_REFUSALS) as error:  # they do not say whom it could not reach, or who refused whom
        msg = f"{why(error)} ({shown(url)})"
        if "unsupported startup parameter" in msg:
            raise ConfigError(_OF_A_POOLER.format(_REFUSES, msg)) from error
        raise _unavailable(error, msg, url) from error
    try:
        connection.keep_alive()
        await _demand_settings(connection, url, arguments.get("server_settings", {}))
        connection.marks.server = await _server_of(connection)
    except BaseException as error:
        connection.terminate()
        if isinstance(error, asyncpg.DuplicatePreparedStatementError):  # another client's: a session is not ours alone
            raise ConfigError(_OF_A_POOLER.format(_SHARES, shown(url))) from error
        if classify(error) in (Kind.CONFLICT, Kind.STALE):  # of no use: there is nothing yet that could be done again
            msg = f"it does not say where it leads: {one_line(error)} ({shown(url)})"
            raise Unavailable(msg) from error
        raise
    return url, connection


def why(error: Exception) -> str:
    """Return in one line why a host could not be reached, or refused, where asyncpg has no words for it, too."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CONNECT_TIMEOUT_S:g} s"
    return "the connection was closed before anybody answered" if _CLOSED in str(error) else one_line(error)


def _unavailable(error: Exception, said: str, url: str) -> Unavailable:
    if isinstance(error, _OF_THE_LOGIN):
        return Rejected(f"the server refuses the login: {said}")
    if _NO_TLS in said:
        return Rejected(f"the server has no TLS, which sslmode asks for: {shown(url)}")
    return Unavailable(said)


_OF_A_POOLER = "a pooler that {} answers, {}: give the address of the server itself"
_REFUSES, _DROPS, _SHARES = "refuses our settings", "drops our settings", "gives several clients one session"


async def _demand_settings(connection: BatchConnection, url: str, settings: Mapping[str, str]) -> None:
    """Raise ConfigError when what was asked for at the start is not so, on connections that ask for a search_path.

    The others of a process lead to the same address. A pooler can be told to pass over what it does not know: then the
    session has neither our time-outs nor our isolation, which the frontier relies on.
    """
    if (asked := settings.get("search_path")) is not None:
        found = await connection.fetchval(_SQL.search_path, timeout=CONNECT_TIMEOUT_S)
        if found != asked:
            raise ConfigError(_OF_A_POOLER.format(_DROPS, shown(url)))


async def _server_of(connection: BatchConnection) -> Server:
    try:
        return Server(*await _row(connection, _SQL.server))
    except asyncpg.InsufficientPrivilegeError:
        rest = [await _if_allowed(connection, ask) for ask in (_SQL.system, _SQL.timeline, _SQL.recovered_at)]
        return Server(*await _row(connection, _SQL.least), *rest)


async def _row(connection: BatchConnection, statement: str) -> asyncpg.Record:
    row = await connection.fetchrow(statement, timeout=CONNECT_TIMEOUT_S)
    assert row is not None, "each of these statements returns one row"
    return row


async def may_look_sooner(connection: AnyConnection, after_ms: int) -> bool:
    """Tell whether this role may say when the server looks for deadlocks, which it does later than after `after_ms`."""
    try:
        return bool(await connection.fetchval(_SQL.may_look_sooner, after_ms))
    except asyncpg.InsufficientPrivilegeError:  # it may not even ask
        return False


async def _if_allowed(connection: BatchConnection, statement: str) -> Any:
    try:
        return (await _row(connection, statement))[0]
    except asyncpg.InsufficientPrivilegeError:
        return None


def _is_open(attempt: _Attempt) -> bool:
    return attempt.done() and not attempt.cancelled() and attempt.exception() is None


async def _until_one_is_open(attempts: Mapping[_Attempt, str], ask: Callable[..., None]) -> None:
    """Wait for an open connection, until each host has had its time once."""
    once = list(attempts)
    while not any(map(_is_open, attempts)) and not all(attempt.done() for attempt in once):
        pending = [attempt for attempt in attempts if not attempt.done()]
        done, _ = await asyncio.wait(pending, timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            ask(*(set(attempts.values()) - {attempts[attempt] for attempt in pending}))


def _best(attempts: Iterable[_Attempt]) -> _Attempt:
    """Return the connection to the latest primary; without any, the failure that tells most."""
    if opened := [attempt for attempt in attempts if _is_open(attempt)]:
        return max(opened, key=lambda attempt: _timeline(attempt.result()[1]))
    return min(attempts, key=lambda attempt: _says_little(attempt.exception()))


def _timeline(connection: BatchConnection) -> int:
    server = connection.marks.server
    return (server.timeline or 0) if server else 0


def _says_little(error: BaseException | None) -> int:
    """Rank a failure: a standby says least about the primary, a host out of reach more; one that refuses says most."""
    if isinstance(error, Unavailable) and isinstance(error.__cause__, _REFUSALS):
        return 0
    silent = (asyncpg.TargetServerAttributeNotMatched, Unavailable)
    return next((rank for rank, kind in enumerate(reversed(silent), 1) if isinstance(error, kind)), 0)
