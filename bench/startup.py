"""From the start of the process until it serves, and what its imports cost."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import TYPE_CHECKING

from bench.figures import Goal, Section, median, spread, table
from bench.scene import ROOT, command_line

if TYPE_CHECKING:
    from bench.scene import Scene

TOP = 12


async def measure(scene: Scene) -> Section:
    """Start a worker, again and again."""
    url = scene.database()
    times = []
    for _ in range(max(scene.repeat, 3)):
        began = time.monotonic()
        async with command_line(url, "startup", ["noop_batch"]) as worker:
            await worker.said("adopted in")
            times.append(time.monotonic() - began)
            worker.process.terminate()
            await worker.process.wait()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-c", "import reactive_orch.cli, reactive_orch.runtime.worker"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    output = (await process.communicate())[1].decode()
    found = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)", output)
    total = sum(int(own) for own, *_ in found)
    packages: dict[str, int] = {}
    for own, _, _, name in found:
        root = name.partition(".")[0]
        packages[root] = packages.get(root, 0) + int(own)
    rows = [[name, f"{us / 1000:.0f}"] for name, us in sorted(packages.items(), key=lambda item: -item[1])[:TOP]]
    text = (
        f'Seconds from starting the process to "adopted": {spread(times)}. '
        f"Imports, by `python -X importtime` (which slows them): {total / 1e6:.2f} s, of which, by package:\n\n"
        + table(["package", "ms"], rows)
    )
    return Section("Start", text, [Goal("process start → serving", "≤ 1 s", f"{spread(times)} s", median(times) <= 1)])
