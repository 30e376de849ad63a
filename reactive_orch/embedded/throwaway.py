"""Servers that are thrown away, for tests: in memory where there is room, and without waiting for a disk.

Processes that come to the same meeting place share one. It lives as long as one of them holds it, by a lock that the
system releases when a process ends, killed or not; `keeper`, a program of its own, waits for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.embedded import keeper, server

if TYPE_CHECKING:
    from collections.abc import Iterator

_MEMORY, _DISK = Path("/dev/shm"), Path("/tmp")  # noqa: S108 - only mkdtemp makes anything there
ROOM = 2 * 2**30
"""Bytes that must be free in memory: a server has some 100 MB, and each of its small databases 10."""

_SETTINGS = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "32MB", "max_wal_size": "256MB"}


def new_directory(prefix: str, room: int = ROOM) -> Path:
    """Make a directory that others may pass: in memory, or in /tmp where less than `room` bytes of it are free.

    There are disks on which each new database takes a third of a second of a processor, as it is some 300 files. No
    program is to lie here, as memory may be mounted without the right to run any. A TMPDIR of root's may be closed to
    the server's user.
    """
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > room
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if roomy else _DISK))
    made.chmod(0o755)
    return made


@contextlib.contextmanager
def alone(meeting: Path) -> Iterator[None]:
    """Let one of the processes that come to this folder at a time run the block."""
    with (meeting / "reactive_orch.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def shared(meeting: Path) -> Iterator[str]:
    """Hold, for the block, the server of all that come to this folder; yields its URI. The first one makes it.

    Raises ConfigError when there can be no server here, Unavailable when it does not start.
    """
    with alone(meeting):
        place, held = _joined(meeting / "reactive_orch-server")
    try:
        yield server.uri(place / "data")
    finally:
        os.close(held)


def _joined(link: Path) -> tuple[Path, int]:
    """Return the place that a link leads to, and what holds it; make another one if its server is gone."""
    if link.exists():
        place = link.resolve()
        with contextlib.suppress(OSError):  # its keeper has just removed it
            held = _hold(place)
            if server.is_running(place / "data"):
                return place, held
            os.close(held)
    place, held = _made()
    link.unlink(missing_ok=True)
    link.symlink_to(place)
    return place, held


def _made() -> tuple[Path, int]:
    programs = server.usable_programs()
    place = new_directory("reactive_orch-test-")
    (place / "held").touch()
    held = _hold(place)
    _start_keeper(place)  # first: it removes what a failure leaves, too
    data = place / "data"
    server.copy_beside(data).symlink_to(programs)
    try:
        server.start(data, settings=_SETTINGS)
    except BaseException:
        os.close(held)
        raise
    return place, held


def _hold(place: Path) -> int:
    held = os.open(place / "held", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    return held


def _start_keeper(place: Path) -> None:
    """Start it in a session of its own, which Ctrl-C and the end of a terminal do not reach; nobody waits for it."""
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    command = [sys.executable, "-I", "-S", keeper.__file__, str(place)]
    os.posix_spawn(sys.executable, command, {"PATH": os.defpath}, file_actions=nowhere, setsid=True)
