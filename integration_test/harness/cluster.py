"""Temporary PostgreSQL clusters for the tests: made from a server's programs, thrown away at the end.

They keep nothing that matters, so they do not wait for the disk (`fsync=off`); all else that the tests are about
(locks, timeouts, NOTIFY) is as in production. PostgreSQL refuses to run as root: then a system user runs it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from integration_test.harness import servers
from integration_test.harness.places import new_directory
from integration_test.harness.processes import ROOT
from reactive_orch.embedded import programs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

StopMode = Literal["smart", "fast", "immediate"]
"""`immediate` is a crash: the next start recovers."""

_SYSTEM_USERS = ("postgres", "nobody")

_SETTINGS = {
    "fsync": "off",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "info",
    "max_connections": "300",
    "max_prepared_transactions": "20",
    "shared_buffers": "32MB",
}


class Cluster:
    """One server on a free TCP port of 127.0.0.1 and on a socket in its directory; user `postgres`, no password.

    Use it in a `with` statement: it is made and started on entry, stopped and removed on exit.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.port = free_port()
        # In /tmp, as a TMPDIR of root's may be closed to the user that runs the server.
        self.directory = Path(tempfile.mkdtemp(prefix=f"reactive_orch-{version}-", dir="/tmp"))
        self.log = self.directory / "log"
        self._place = self._find_place()
        self._data = self._place / "data"
        self._programs = Path()

    def __enter__(self) -> Self:
        try:
            self._make()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if (self._data / "postmaster.pid").exists():
                self.stop("immediate")
        finally:
            shutil.rmtree(self.directory)
            shutil.rmtree(self._place, ignore_errors=True)

    def _find_place(self) -> Path:
        """Return where the data directory is to be made: nothing is kept, so no disk is needed."""
        return new_directory(f"reactive_orch-{self.version}-")

    def start(self) -> None:
        """Start the server and wait until it accepts connections. Raises RuntimeError with its log if it does not."""
        self._serve("pg_ctl", "start", "-D", self._data, "-l", self.log, "-w")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server and wait until it is gone."""
        self._serve("pg_ctl", "stop", "-D", self._data, "-m", mode, "-w")

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start; the port stays the same."""
        self.stop(mode)
        self.start()

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database over TCP."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str, *options: str) -> str:
        """Create an empty database, with these options of `createdb`, and return its URL."""
        if not options:
            return self.clone_database("template1", name)
        self._ask("createdb", *options, name)
        return self.url(name)

    def clone_database(self, source: str, name: str, *options: str) -> str:
        """Copy a database, to which nobody is connected, with these options of `createdb`; return the copy's URL."""
        self._ask("createdb", *options, "--template", source, name)
        return self.url(name)

    def copy_database(self, source: str, target: str) -> None:
        """Dump a database and restore it into another one, empty and perhaps of another encoding."""
        dump = self.directory / f"{source}.dump"
        self._ask("pg_dump", "--format=custom", f"--file={dump}", source)
        self._ask("pg_restore", "--exit-on-error", f"--dbname={target}", dump)

    def drop_database(self, name: str) -> None:
        """Drop a database, if it exists, whoever is connected."""
        self._ask("dropdb", "--force", "--if-exists", name)

    def _make(self) -> None:
        self.directory.chmod(0o755)
        self._data.mkdir()
        if os.geteuid() == 0:
            owner = system_user()
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            os.chown(self._data, owner.pw_uid, owner.pw_gid)
        self._programs = find_programs(self.version, self.directory / "programs")
        self._serve("initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-locale", "-N")
        settings = _SETTINGS | {"port": str(self.port), "unix_socket_directories": str(self.directory)}
        with (self._data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def _serve(self, program: str, *arguments: object) -> None:
        """Run what only the server's user may."""
        self._run(program, *arguments, **system_identity())

    def _ask(self, program: str, *arguments: object) -> None:
        """Run a client."""
        self._run(program, f"--host={self.directory}", f"--port={self.port}", "--username=postgres", *arguments)

    def _run(self, program: str, *arguments: object, through: Sequence[str] = (), **identity: Any) -> None:
        """Run a program of the server's, perhaps `through` another one that runs what is behind it."""
        done = subprocess.run(
            [*through, str(self._programs / program), *map(str, arguments)],
            check=False,
            cwd="/",
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C ends the tests, and they end the server
            text=True,
            **identity,
        )
        if done.returncode:
            log = self.log.read_text()[-2000:] if self.log.exists() else ""
            msg = f"{program} of PostgreSQL {self.version} failed: {done.stderr}\n{log}"
            raise RuntimeError(msg)


class Standby(Cluster):
    """A standby of a running cluster."""

    def __init__(self, primary: Cluster) -> None:
        super().__init__(primary.version)
        self._primary = primary

    def _make(self) -> None:
        owner = self._primary.directory.stat()
        self.directory.chmod(0o755)
        for each in (self.directory, self._place):
            shutil.chown(each, owner.st_uid, owner.st_gid)
        self._programs = self._primary._programs  # noqa: SLF001 - of its own class
        self._serve("pg_basebackup", "-D", self._data, "-d", self._primary.url(), "-R", "-c", "fast")
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"port = '{self.port}'\nunix_socket_directories = '{self.directory}'\n")


def migrate(url: str, *options: str) -> None:
    """Create the schema, by the command, with these options."""
    command = [sys.executable, "-m", "reactive_orch", "migrate", *options, "--database-url", url]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def copied(cluster: Cluster, name: str, template: str = "template1") -> Iterator[str]:
    """Copy a database for the block; yields the URL of the copy."""
    url = cluster.clone_database(template, name, "--strategy=file_copy")  # as good here, and by half quicker
    try:
        yield url
    finally:
        cluster.drop_database(name)


@contextlib.contextmanager
def migrated(cluster: Cluster, name: str, *options: str) -> Iterator[str]:
    """Make a database with the schema for the block; yields its URL."""
    with copied(cluster, name) as url:
        migrate(url, *options)
        yield url


def find_programs(version: str, copy: Path) -> Path:
    """Return the folder of a version's programs; the wheel's are copied, as its folders may be closed to other users.

    Raises FileNotFoundError with what to install.
    """
    installed = servers.programs_of(version)
    if installed is not None:
        return installed
    programs.copy_to(copy)
    return programs.folder(copy)


def system_identity() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    owner = system_user()
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def system_user() -> pwd.struct_passwd:
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(known[name] for name in _SYSTEM_USERS if name in known)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
