"""Where the data of servers that are thrown away lie: in memory, as a new database is some 300 files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

_MEMORY, _DISK = Path("/dev/shm"), Path("/tmp")  # noqa: S108 - only mkdtemp makes anything there
_ROOM = 8 * 2**30


def new_directory(prefix: str) -> Path:
    """Make a directory that others may pass: in memory, or in /tmp where there are less than 8 GB of it.

    There are disks on which each new database takes a third of a second of a processor. No program is to lie here, as
    memory may be mounted without the right to run any. A TMPDIR of root's may be closed to the server's user.
    """
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if roomy else _DISK))
    made.chmod(0o755)
    return made
