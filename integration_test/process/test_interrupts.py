"""Ctrl-C at any moment of a command, also of its first half second, in which it imports: no word, exit code 1."""

from __future__ import annotations

import asyncio
import sys

import pytest

from integration_test.harness.command_line import environment
from integration_test.harness.processes import ROOT
from integration_test.harness.waiting import TIMEOUT_S

AT_IMPORT = """
import os, signal, sys
module = sys.argv.pop(1)
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Interrupting())
from reactive_orch.__main__ import run
run()
"""


@pytest.mark.parametrize(
    "module",
    ["reactive_orch.cli", "asyncpg", "reactive_orch.commands.append", "anyio", "reactive_orch.postgres.grants"],
)
async def test_it_is_quiet_while_it_imports(module: str) -> None:
    command = (sys.executable, "-c", AT_IMPORT, module, "grants", "--role", "r", "--for", "worker")
    piped = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environment({}), stdout=piped, stderr=piped)
    out, err = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert (process.returncode, out, err) == (1, b"", b"")


IN_A_CALLBACK = """
import signal
from reactive_orch.process import interrupts
interrupts.end_at_once()
interrupts.raise_again()
class Last:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
Last()
print("it went on")
"""


async def test_it_is_not_lost_where_python_would_only_mention_it() -> None:
    piped = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", IN_A_CALLBACK, stdout=piped, stderr=piped)
    assert (await process.communicate(), process.returncode) == ((b"", b""), 1)


async def test_what_is_started_in_the_background_of_a_shell_goes_on() -> None:
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{AT_IMPORT}"
    command = (sys.executable, "-c", code, "asyncpg", "grants", "--role", "r", "--for", "worker")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment({}), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    assert process.returncode == 0
    assert b"GRANT" in out
