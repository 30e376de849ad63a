"""The databases of one process of tests: templates, which all processes of a run share, and a copy for each test.

All of this goes through one connection, in an event loop of its own in a thread of its own: so it is there for tests on
any loop, and for those that have none.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
import secrets
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from anyio.from_thread import start_blocking_portal

from reactive_orch.address import database_url, in_database
from reactive_orch.embedded import programs, throwaway
from reactive_orch.errors import ConfigError, Unavailable
from reactive_orch.postgres import migrations, testing
from reactive_orch.postgres.faults import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from anyio.from_thread import BlockingPortal

    from reactive_orch.postgres.connection import AnyConnection

Tables: TypeAlias = "str | Path | Callable[[Any], object]"
"""What makes a user's own tables: SQL, a file of it, an async function of a connection, or a plain one of a URL."""

_NOT_INSTALLED = (
    "tests have no PostgreSQL: pip install 'reactive_orch[testing]' for an embedded one, or set DATABASE_URL to one "
    "whose role may create databases"
)


@contextlib.contextmanager
def databases(meeting: Path, environment: Mapping[str, str]) -> Iterator[Databases]:
    """Have the databases of this process for the block, on the server of DATABASE_URL, or an embedded one.

    `meeting` is a folder in which all processes of a run meet. Raises ConfigError and Unavailable.
    """
    with contextlib.ExitStack() as stack:
        server = _named(environment) or stack.enter_context(_embedded(meeting))
        portal = stack.enter_context(start_blocking_portal())
        connection = stack.enter_context(portal.wrap_async_context_manager(testing.connected(server)))
        made = Databases(portal, connection, server, meeting)
        with made.going_on():
            yield made


class Databases:
    """Makes a database for each test, and drops it."""

    def __init__(self, portal: BlockingPortal, connection: AnyConnection, server: str, meeting: Path) -> None:
        """`portal` is where the connection lives."""
        self._portal, self._connection, self._server, self._meeting = portal, connection, server, meeting
        self._beginning = portal.call(testing.name_beginning, connection)
        self._run = _run_of(meeting)
        self._numbers = itertools.count(1)
        self._templates: set[str] = set()

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Say for the block that the run is going on; before and after, drop what belongs to runs that are over."""
        self._portal.call(testing.clean, self._connection, self._beginning)
        self._portal.call(testing.begin, self._connection, self._run)
        yield
        with _or_left_behind():
            self._portal.call(testing.end, self._connection, self._run)
            self._portal.call(testing.clean, self._connection, self._beginning)

    @contextlib.contextmanager
    def another(self, tables: Tables | Sequence[Tables]) -> Iterator[str]:
        """Have a new database with these tables for the block; yields its URL.

        Raises ConfigError for what makes no tables, and when the role may not create databases; Unavailable when the
        server has gone meanwhile; and what `tables` do.
        """
        template = self._template(_checked(tables))
        name = f"{self._beginning}{self._run}_{os.getpid()}_{next(self._numbers)}"
        self._portal.call(testing.copy, self._connection, template, name)
        try:
            yield in_database(self._server, name)
        finally:
            with _or_left_behind():
                self._portal.call(testing.drop, self._connection, name)

    def _template(self, tables: Sequence[Tables]) -> str:
        """Return the template with these tables; the first of all processes that asks for it makes it.

        It gets its name when it is complete.
        """
        digest = sha256("\0".join(map(_told_apart, tables)).encode()).hexdigest()[:8]
        name = f"{self._beginning}{self._run}_t{digest}"
        if name not in self._templates:
            with throwaway.alone(self._meeting):
                if not self._portal.call(testing.exists, self._connection, name):
                    unfinished = f"{name}_making"
                    self._portal.call(testing.drop, self._connection, unfinished)
                    self._portal.call(testing.copy, self._connection, "template1", unfinished)
                    self._fill(in_database(self._server, unfinished), tables)
                    self._portal.call(testing.rename, self._connection, unfinished, name)
            self._templates.add(name)
        return name

    def _fill(self, url: str, tables: Sequence[Tables]) -> None:
        with self._portal.wrap_async_context_manager(testing.connected(url)) as connection:
            self._portal.call(migrations.migrate, connection)
            for each in tables:
                if isinstance(each, str | Path):
                    sql = each.read_text(encoding="utf-8") if isinstance(each, Path) else each
                    self._portal.call(connection.execute, sql)
                elif inspect.iscoroutinefunction(each):
                    self._portal.call(each, connection)
                else:
                    each(url)


@contextlib.contextmanager
def _or_left_behind() -> Iterator[None]:
    """Clean up in the block, unless the connection is lost: what is left then is dropped by the next run."""
    with contextlib.suppress(Unavailable), translated():
        yield


def _named(environment: Mapping[str, str]) -> str | None:
    """Return the URI that DATABASE_URL says; None if there is none. Raises ConfigError for what is no address."""
    given = environment.get("DATABASE_URL")
    if given == "":
        msg = "DATABASE_URL is set, but empty: give it an address, or unset it for the embedded server"
        raise ConfigError(msg)
    return None if given is None else database_url(given, environment)


@contextlib.contextmanager
def _embedded(meeting: Path) -> Iterator[str]:
    try:
        programs.version()
    except ConfigError as error:
        raise ConfigError(_NOT_INSTALLED) from error
    with throwaway.shared(meeting) as url:
        yield url


def _run_of(meeting: Path) -> int:
    """Return the number of the run whose processes meet here; the first one draws it."""
    file = meeting / "reactive_orch-run"
    with throwaway.alone(meeting):
        if not file.exists():
            file.write_text(str(secrets.randbits(31)))
        return int(file.read_text())


def _checked(tables: Tables | Sequence[Tables]) -> Sequence[Tables]:
    """Return the tables one by one. Raises ConfigError for what is none of what they can be, and a missing file."""
    listed: Sequence[Any] = tables if isinstance(tables, list | tuple) else [tables]
    for each in listed:
        if not (isinstance(each, str | Path) or callable(each)):
            msg = (
                "orch_tables returns SQL, the Path of a file of it, a function, or a list of these, and not "
                f"{type(each).__name__}"
            )
            raise ConfigError(msg)
        if isinstance(each, Path) and not each.is_file():
            msg = f"orch_tables names {each}, and there is no such file (looked up from {Path.cwd()})"
            raise ConfigError(msg)
    return listed


def _told_apart(each: Tables) -> str:
    """Return what is the same in all processes of a run for the same tables, and for no others."""
    if isinstance(each, str):
        return each
    if isinstance(each, Path):
        return each.read_text(encoding="utf-8")
    code = getattr(each, "__code__", None)
    if code is None:
        return repr(each)
    enclosed = [cell.cell_contents for cell in getattr(each, "__closure__", None) or ()]
    return f"{code.co_filename}:{code.co_firstlineno} {each.__qualname__} {enclosed!r}"
