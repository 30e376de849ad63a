"""What exporting by OTLP costs a worker: its throughput with and without, turn by turn.

    python -m bench.telemetry [--pg 18] [--events 60000] [--pairs 5] [--report bench/RESULTS.md]

One worker process handles a full log in batches of 100, which one statement per batch writes to a table. The clock is
the database's, from the first row to the last. The endpoint is a process that reads and discards: what a collector does
with it is not the worker's cost. Events without a producer's trace, and with one: five events of each producer, so that
each batch has twenty links. Beside the throughput, which other load on the machine disturbs, the processor time of the
worker per event, without that of its start (a run with nothing to do).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from bench.scene import Server
from integration_test.harness import projections
from integration_test.harness.connections import connected
from integration_test.harness.report import machine, put_section

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
LOSS_MAX = 0.05

_FILL = """
INSERT INTO reactive_orch.events (aggregate_type, aggregate_id, aggregate_version, event_type, payload, metadata)
SELECT 'Order', 'order-' || n % 5000, n / 5000 + 1, 'OrderPlaced', convert_to(repeat('x', 100), 'UTF8'),
       CASE WHEN $2 THEN jsonb_build_object('traceparent', '00-' || md5((n / 5)::text) || '-'
                                            || left(md5((n / 5)::text), 16) || '-01') ELSE '{}' END
FROM generate_series(0, $1::integer - 1) AS n
"""
_TOOK = "SELECT extract(epoch FROM max(h.at) - min(h.at))::float8 FROM public.handled h WHERE h.replica_set = $1"


async def _sink() -> None:
    """Read and discard, for ever; says its port first."""

    async def discard(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/{rest:.*}", discard)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def _endpoint() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.telemetry", "--sink"), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()


class Took(NamedTuple):
    """What one run took, in seconds."""

    wall: float
    cpu: float


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _run(url: str, replica_set: str, env: Mapping[str, str]) -> Took:
    """Return what one worker took for the whole log."""
    before = _cpu_s()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reactive_orch", "--database-url", url, "--replica-set", replica_set, "--until-idle"),
        *(
            "--projection",
            "integration_test.harness.projections:handled_in_batches",
            "--batch",
            "100",
            "--http",
            "127.0.0.1:0",
        ),
        cwd=ROOT,
        env={**os.environ, projections.REPLICA_SET: replica_set, **env},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    if process.returncode:
        raise RuntimeError(said.decode())
    cpu = _cpu_s() - before
    async with connected(url) as connection:
        wall = float(await connection.fetchval(_TOOK, replica_set) or 0.0)
        await connection.execute("TRUNCATE public.handled")
    return Took(wall, cpu)


async def _migrated(url: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reactive_orch", "migrate", "--database-url", url),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    await process.wait()


class Pair(NamedTuple):
    """Events per second, and microseconds of the worker's processor per event: without and with."""

    off: float
    on: float
    cpu_off: float
    cpu_on: float


async def _filled(server: Server, events: int, *, traced: bool) -> str:
    url = server.create_database(f"traced_{traced}".lower())
    await _migrated(url)
    async with connected(url) as connection:
        await projections.create_tables(connection)
        await connection.execute(_FILL, events, traced)
        await connection.execute("VACUUM ANALYZE reactive_orch.events")
    await _run(url, "warm", {})
    return url


async def _compared(url: str, events: int, pairs: int, more: Mapping[str, str]) -> list[Pair]:
    found: list[Pair] = []
    async with _endpoint() as endpoint:
        on = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip", **more}
        for n in range(pairs):
            # Whoever goes first changes with each pair.
            modes: dict[str, Mapping[str, str]] = {"off": {}, "on": on}
            turns = list(modes.items())[:: 1 if n % 2 else -1]
            name = f"{len(more)}-{n}-"
            took = {mode: await _run(url, name + mode, env) for mode, env in turns}
            # The same process again has nothing to do: that is the cost of its start.
            idle = {mode: await _run(url, name + mode, env) for mode, env in turns}
            cpu = {mode: (took[mode].cpu - idle[mode].cpu) / events * 1e6 for mode in took}
            found.append(Pair(events / took["off"].wall, events / took["on"].wall, cpu["off"], cpu["on"]))
            print(f"  {found[-1]}")
    return found


def _row(what: str, pairs: Sequence[Pair]) -> str:
    ratios = sorted(pair.on / pair.off for pair in pairs)
    ratio = statistics.median(ratios)
    off, on, cpu_off, cpu_on = (statistics.median(values) for values in zip(*pairs, strict=True))
    verdict = "met" if ratio >= 1 - LOSS_MAX else "**missed**"
    spread = f"{ratio:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    return f"| {what} | {off:,.0f} | {on:,.0f} | {spread} | {verdict} | {cpu_off:.0f} | {cpu_on:.0f} |"


_ALL = {"OTEL_TRACES_SAMPLER": "parentbased_always_on"}
_CASES: list[tuple[str, bool, dict[str, str]]] = [
    ("without a producer's trace", False, {}),
    ("with one: 20 links per batch", True, {}),
    ("the same, every batch sent (`OTEL_TRACES_SAMPLER=parentbased_always_on`)", True, _ALL),
]


async def _measure(version: str, events: int, pairs: int) -> str:
    rows = []
    with Server(version) as server:
        urls = {traced: await _filled(server, events, traced=traced) for traced in (False, True)}
        for what, traced, more in _CASES:
            print(what)
            rows.append(_row(what, await _compared(urls[traced], events, pairs, more)))
    return "\n".join(
        [
            "## What telemetry costs",
            "",
            f"{machine()}, PostgreSQL {version}, flushing to the disk; one worker, batches of 100, {events:,} events, "
            f"{pairs} pairs, turn by turn. OTLP over HTTP with gzip to a process that discards. "
            "Events per second, median; the goal is a loss of at most 5 %. `python -m bench.telemetry`",
            "",
            "| events | off | on | on ÷ off (least to greatest) | | processor, off: µs per event | on |",
            "|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def main() -> None:
    """Measure, print, and write the section if asked to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pg", default="18")
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    if options.sink:
        asyncio.run(_sink())
        return
    section = asyncio.run(_measure(options.pg, options.events, options.pairs))
    print(section)
    if options.report:
        put_section(options.report, "telemetry", section)


if __name__ == "__main__":
    main()
