"""PgBouncer between a test and a server, where this machine has it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from integration_test.harness.cluster import free_port, system_identity
from integration_test.harness.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

_CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
ignore_startup_parameters = {ignored}
"""


@contextlib.asynccontextmanager
async def pooled(url: str, mode: str, *, ignored: str = "") -> AsyncIterator[str]:
    """Run PgBouncer in front of the server of a URL; yields the URL that leads through it."""
    assert PROGRAM is not None, "the test is skipped where it is not installed"
    server, port = urlsplit(url), free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        file = Path(folder) / "pgbouncer.ini"
        file.write_text(_CONFIGURATION.format(server=server.port, port=port, mode=mode, ignored=ignored))
        process = subprocess.Popen([PROGRAM, "-q", file], stderr=subprocess.DEVNULL, **system_identity())
        try:
            await wait_until(lambda: _answers(port))
            yield f"postgresql://postgres@127.0.0.1:{port}{server.path}"
        finally:
            process.terminate()
            process.wait()


async def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
