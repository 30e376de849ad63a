"""Run a contestant's script: python serve.py run_NAME URL.

Questions come on standard input, one JSON array `[name of a method, arguments]` a line; each gets one line of JSON.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protocol import Script


async def serve(script: Script) -> None:
    """Answer questions until standard input ends."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print("null", flush=True)
    while line := await reader.readline():
        name, arguments = json.loads(line)
        print(json.dumps(await getattr(script, name)(**arguments)), flush=True)
    os._exit(0)  # whatever threads and tasks a library still has


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    getattr(module, "run", asyncio.run)(serve(module.script(sys.argv[2])))
