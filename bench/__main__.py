"""The command line of the measurements."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Section, goals_table
from bench.scene import Scene, Server
from integration_test.harness.report import machine, put_section

if TYPE_CHECKING:
    from bench.figures import Goal

NAMES = [
    "latency",
    "read_back",
    "catchup",
    "hot_path",
    "shared",
    "shared_rows",
    "failing_keys",
    "lanes",
    "together",
    "late",
    "append",
    "bell",
    "idle",
    "partitions",
    "rebalance",
    "startup",
    "kit",
    "readers",
    "memory",
    "frontier",
    "many_locks",
    "plans",
    "pure_core",
    "typed",
    "many",
    "tables",
    "viewers",
    "day",
    "large",
    "handlers",
]
RESULTS = Path(__file__).parent / "RESULTS.md"


def main() -> int:
    """Measure what is asked for, print it, write it."""
    options = _options()
    if options.list:
        for name in NAMES:
            print(f"{name:10} {(importlib.import_module(f'bench.{name}').__doc__ or '').partition(chr(10))[0]}")
        return 0
    goals: list[Goal] = []
    failed = []
    with Server(options.pg) as server:
        scene = Scene(server, options.repeat, options.scale, options.events, options.minutes)
        for name in options.only or NAMES:
            began = time.monotonic()
            print(f"… {name}", file=sys.stderr, flush=True)
            try:
                section = asyncio.run(importlib.import_module(f"bench.{name}").measure(scene))
            except Exception as error:  # noqa: BLE001 - the others are still worth measuring
                print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
                failed.append(name)
                continue
            _show(name, section, options, time.monotonic() - began)
            goals += section.goals
    if goals:
        print("\n" + goals_table(goals))
        if options.report:
            _collect_goals(options.report)
    return 1 if failed else 0


def _collect_goals(report: Path) -> None:
    """Put the goals of all sections first, those of earlier runs included: each section says how it was measured."""
    text, head = report.read_text(encoding="utf-8"), goals_table([])
    sections = [re.search(f"<!-- {name}: begin -->(.*?)\n<!-- {name}: end -->", text, re.DOTALL) for name in NAMES]
    rows = "".join(found[1].partition(head)[2] for found in sections if found)
    put_section(
        report, "goals", f"## Goals\n\nOf all the sections below, each with how it was measured.\n\n{head}{rows}"
    )


def _show(name: str, section: Section, options: argparse.Namespace, seconds: float) -> None:
    goals = f"\n\n{goals_table(section.goals)}" if section.goals else ""
    text = f"## {section.title}\n\n`python -m bench --only {name}`; {_how(options)}; {seconds:.0f} s.\n\n{section.text}{goals}"
    print(f"\n{text}", flush=True)
    if options.report:
        put_section(options.report, name, text)


def _how(options: argparse.Namespace) -> str:
    return f"PostgreSQL {options.pg}, {machine()}, {options.repeat} repetitions, scale {options.scale:g}"


def _options() -> argparse.Namespace:
    import os

    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure; see bench/__init__.py.")
    parser.add_argument("--only", action="append", choices=NAMES, help="one measurement; may be repeated")
    parser.add_argument("--list", action="store_true", help="say what there is")
    parser.add_argument("--pg", default="15", choices=["15", "18"])
    parser.add_argument("--repeat", type=int, default=5, help="how often each pair is measured")
    parser.add_argument("--scale", type=float, default=1.0, help="of counts and durations; 0.1 for a quick look")
    parser.add_argument(
        "--minutes", type=float, default=float(os.environ.get("BENCH_MINUTES", "1")), help="of `tables`"
    )
    parser.add_argument("--events", type=int, default=int(os.environ.get("BENCH_EVENTS", "1000000")), help="of `plans`")
    parser.add_argument("--report", type=Path, default=RESULTS)
    parser.add_argument("--no-report", dest="report", action="store_const", const=None)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
