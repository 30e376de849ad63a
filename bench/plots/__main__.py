"""The command line of the pictures."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from bench.plots import catch_up, latency, rebalance, style
from bench.scene import ROOT, Scene, Server
from integration_test.harness.report import machine

PICTURES = {"latency": latency, "catch-up": catch_up, "rebalance": rebalance}


def main() -> None:
    """Measure and draw what is asked for."""
    options = _options()
    measured_on = f"PostgreSQL {options.pg}, {machine()}; load of the machine before the run: {os.getloadavg()[0]:.1f}"
    with Server(options.pg) as server:
        scene = Scene(server, repeat=3, scale=options.scale)
        for name in options.only or PICTURES:
            print(f"… {name}", file=sys.stderr, flush=True)
            data = asyncio.run(PICTURES[name].measure(scene))
            style.save(PICTURES[name].draw(data), options.folder / f"{name}.svg", measured_on)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.plots", description="Measure and draw the pictures of docs/performance.md."
    )
    parser.add_argument("--only", action="append", choices=PICTURES, help="one picture; may be repeated")
    parser.add_argument("--pg", default="15", choices=["15", "18"])
    parser.add_argument("--scale", type=float, default=1.0, help="of counts and durations; 0.3 for a quick look")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
