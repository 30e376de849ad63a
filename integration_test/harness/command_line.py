"""Commands as their users run them, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from integration_test.harness.processes import ROOT
from integration_test.harness.waiting import TIMEOUT_S
from reactive_orch import cli

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

CONFIG, UNREACHABLE, FAILED = 2, 3, 1
UNUSED_PORT = 1
NOBODY_LISTENS = f"postgresql://postgres@127.0.0.1:{UNUSED_PORT}/nothing"


def environment(variables: dict[str, str]) -> dict[str, str]:
    """Return the tests' variables without those that say where a database is, and with these."""
    of_databases = re.compile(r"DATABASE_URL|POSTGRES_|PG(?!15_BIN)")
    ours = {name: value for name, value in os.environ.items() if not of_databases.match(name)}
    return {**ours, "PYTHONPATH": str(ROOT), **variables}


_OF_SLOW_MACHINES = re.compile(
    r"(?m)^(Executing <.* took .* seconds"  # debug mode (make test-debug) tells of slow steps
    r"|reactive_orch: [^:\n]+: (reading|sending|numbering|appending|committing|handling|waiting): .*)\n"
)
"""What is no word of a command's own: on a quick machine there would be none."""


class Ended(NamedTuple):
    """What is left of a command."""

    code: int
    out: str
    err: str

    def complaint(self, code: int = CONFIG) -> str:
        """Return the one line on standard error, which must be all there is."""
        assert self.code == code, self
        assert re.fullmatch(r"reactive_orch: [^\n]+\n", self.err), self
        return self.err.removeprefix("reactive_orch: ").rstrip("\n")

    def done(self) -> str:
        """Return the output of a command that did its work without a word of complaint."""
        assert (self.code, self.err) == (0, ""), self
        return self.out


@contextlib.asynccontextmanager
async def started(
    *arguments: str,
    cwd: Path = ROOT,
    stdin: int = asyncio.subprocess.PIPE,
    module: str = "reactive_orch",
    **variables: str,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a command; `variables` are all that its environment says of databases. Killed at the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        cwd=cwd,
        env=environment(variables),
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def run(*arguments: str, stdin: str | bytes = b"", cwd: Path = ROOT, **variables: str) -> Ended:
    """Run a command to its end."""
    piped = asyncio.subprocess.PIPE
    async with asyncio.timeout(TIMEOUT_S), started(*arguments, cwd=cwd, stdin=piped, **variables) as process:
        out, err = await process.communicate(stdin.encode() if isinstance(stdin, str) else stdin)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), _OF_SLOW_MACHINES.sub("", err.decode()))


def run_here(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: str, url: str) -> Ended:
    """Run a command in this process, in a loop of its own: a third of a second of a processor less than `run` takes."""
    for name in set(os.environ) - set(environment({})):
        monkeypatch.delenv(name)
    monkeypatch.setenv("DATABASE_URL", url)
    code = cli.main(words.split())
    out, err = capfd.readouterr()
    return Ended(code, out, _OF_SLOW_MACHINES.sub("", err))


async def run_worker(*arguments: str, url: str = NOBODY_LISTENS, cwd: Path = ROOT, **variables: str) -> Ended:
    """Run a worker that has nothing to do; unless told otherwise its database is out of reach."""
    defaults = ("--replica-set", "test", "--http", "127.0.0.1:0", "--until-idle", "--database-url", url)
    return await run(*defaults, *arguments, cwd=cwd, **variables)
