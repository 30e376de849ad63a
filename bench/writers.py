"""Writers as fast as they can: pgbench's, one INSERT a transaction, synchronous_commit on."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import TYPE_CHECKING

from bench.figures import median
from bench.scene import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.scene import Scene

INSERT = (
    "INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload) "
    "VALUES ('Order', gen_random_uuid()::text, 1, 'OrderPlaced', '{}');\n"
)
FLUSHES = (("0", "the disk's own flush"), ("1000", "flushes of at least 1 ms (commit_delay)"))
"""commit_delay in microseconds: whoever flushes sleeps so long before, holding the lock, as if the disk were slower. It
does so without anybody else in a transaction only if commit_siblings is 0."""
DRAINED_WITHIN_S = 60.0


async def set_flush(scene: Scene, delay_us: str) -> None:
    """Make every flush of the server's log take this much longer."""
    async with connected(scene.server.url()) as connection:
        await connection.execute(f"ALTER SYSTEM SET commit_delay = {delay_us}")
        await connection.execute("ALTER SYSTEM SET commit_siblings = 0")
        await connection.execute("SELECT pg_reload_conf()")
    await asyncio.sleep(0.2)


async def flush_ms(scene: Scene) -> float:
    """Return how long a commit takes alone."""
    url = scene.database()
    times = []
    async with connected(url) as connection:
        for n in range(100):
            began = time.perf_counter()
            await connection.execute("UPDATE public.bench_checkpoint SET position = $1 WHERE id = 1", n)
            times.append((time.perf_counter() - began) * 1000)
    scene.drop(url)
    return median(times)


async def rate_of(scene: Scene, url: str, writers: int, seconds: int) -> float:
    """Let them write for so long; return the transactions per second."""
    process = await _start(scene, url, writers, seconds)
    output = (await process.communicate())[0].decode()
    found = re.search(r"tps = ([\d.]+)", output)
    if found is None:
        raise RuntimeError(output)
    return float(found[1])


@contextlib.asynccontextmanager
async def appending(scene: Scene, url: str, writers: int) -> AsyncIterator[None]:
    """Let them write for the block."""
    process = await _start(scene, url, writers, 600)
    try:
        yield
    finally:
        process.terminate()
        await process.communicate()


async def _start(scene: Scene, url: str, writers: int, seconds: int) -> asyncio.subprocess.Process:
    script = scene.server.directory / "append.sql"
    if not script.exists():
        script.write_text(INSERT)
        script.chmod(0o644)
    return await asyncio.create_subprocess_exec(
        str(scene.server.programs / "pgbench"),
        *("-n", "-c", str(writers), "-j", str(min(writers, 2)), "-T", str(seconds), "-M", "prepared"),
        *("-f", str(script), url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def drained(url: str) -> None:
    """Wait until the readers have read it all, so that they do not disturb what comes next."""
    async with connected(url) as connection, asyncio.timeout(DRAINED_WITHIN_S):
        while await connection.fetchval(
            "SELECT (SELECT max(global_position) FROM reactive_orch.events)"
            " > coalesce((SELECT max(position) FROM reactive_orch.checkpoints), 0)"
        ):
            await asyncio.sleep(0.05)
