"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from bench.peers import report, turns
from bench.peers.contestants import CONTESTANTS, OURS, Field
from bench.scene import Scene, Server
from integration_test.harness.report import machine, put_section

RESULTS = Path(__file__).parents[1] / "RESULTS.md"


async def measure(at: Field) -> str:
    """Return the section."""
    await at.prepare()
    _progress("throughput")
    seen = await turns.throughput(at)
    _progress("latency")
    delays = await turns.latency(at)
    _progress("writing")
    rates = await turns.writing(at)
    _progress("deaths")
    found = await turns.deaths(at, seen)
    return report.text(at.contestants, seen, delays, rates, found)


def _progress(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


def main() -> int:
    """Measure, print, write."""
    options = _options()
    chosen = [one for one in CONTESTANTS if not options.only or one.name in {OURS, *options.only}]
    began = time.monotonic()
    with Server(options.pg) as server:
        body = asyncio.run(measure(Field(Scene(server, options.repeat, options.scale), chosen)))
    how = f"PostgreSQL {options.pg}, {machine()}, {options.repeat} repetitions, scale {options.scale:g}"
    section = f"## Peers\n\n`make bench-peers`; {how}; {time.monotonic() - began:.0f} s.\n\n{body}"
    print(section)
    if options.report:
        put_section(options.report, "peers", section)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="Measure; see bench/peers/__init__.py.")
    peers = [one.name for one in CONTESTANTS if one.name != OURS]
    parser.add_argument("--only", action="append", choices=peers, help="one of them; may be repeated")
    parser.add_argument("--pg", default="15", choices=["15", "18"])
    parser.add_argument("--repeat", type=int, default=3, help="turns of each")
    parser.add_argument("--scale", type=float, default=1.0, help="of counts and durations; 0.1 for a quick look")
    parser.add_argument("--report", type=Path, default=RESULTS)
    parser.add_argument("--no-report", dest="report", action="store_const", const=None)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
