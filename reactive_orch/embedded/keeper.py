"""A program of its own: it ends a server that is thrown away, and removes its place, once nobody holds it any more.

`throwaway` starts it with the place. It imports nothing of this package: it is there as long as the tests are, and the
environment that they run in may be gone by then.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
from pathlib import Path

STOP_TIMEOUT_S = 10.0
_LOOK_S = 0.01


def keep(place: Path) -> None:
    """Wait until nobody holds the place, then remove it with its server."""
    os.chdir("/")
    with (place / "held").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the system gives it when the last holder has ended, however it did
        with contextlib.suppress(OSError, ValueError):  # it never started, or is gone
            _stop(place / "data" / "postmaster.pid")
        shutil.rmtree(place, ignore_errors=True)


def _stop(pid_file: Path) -> None:
    """Let the server fall: nothing of it is kept. It removes this file when it is gone."""
    os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGQUIT)
    give_up_at = time.monotonic() + STOP_TIMEOUT_S
    while pid_file.exists() and time.monotonic() < give_up_at:
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
