"""Which PostgreSQL servers there are to test on: the wheel's always, older ones where this machine has them."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

from reactive_orch.embedded import programs

WHEEL = str(programs.POSTGRES_MAJOR)
OLDEST = 15
"""Older ones lack what the schema uses."""


@functools.cache
def older() -> dict[str, Path]:
    """Return version → folder of its programs, of every supported server besides the wheel's, the oldest first.

    Looked for, in this order: PG15_BIN (PG16_BIN, …), Debian's and Red Hat's folders, `pg_config` and `initdb` in PATH.
    """
    wanted = range(OLDEST, int(WHEEL))
    named = [Path(os.environ[name]) for number in wanted if os.environ.get(name := f"PG{number}_BIN")]
    system = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    found: dict[str, Path] = {}
    for folder in (*named, *system, *_in_path()):
        number = _major(folder)
        if number in wanted:
            found.setdefault(str(number), folder)
    return dict(sorted(found.items()))


def all_found() -> list[str]:
    """Return the versions of all servers of this machine, the oldest first."""
    return [*older(), WHEEL]


def chosen() -> list[str]:
    """Return the versions that REACTIVE_ORCH_PG names, else all that are found."""
    named = os.environ.get("REACTIVE_ORCH_PG")
    return named.split(",") if named else all_found()


def programs_of(version: str) -> Path | None:
    """Return where the programs of a version are, None for the wheel's.

    Raises FileNotFoundError with what to install.
    """
    if version == WHEEL:
        return None
    found = older()
    if version not in found:
        msg = (
            f"PostgreSQL {version} is not on this machine: install it (Debian: apt-get install postgresql-{version}), "
            f"say where its programs are in PG{version}_BIN, or choose servers by --pg or REACTIVE_ORCH_PG "
            f"(there are {', '.join(all_found())})"
        )
        raise FileNotFoundError(msg)
    return found[version]


def _in_path() -> list[Path]:
    folders = [Path(initdb).resolve().parent] if (initdb := shutil.which("initdb")) else []
    if shutil.which("pg_config"):
        said = subprocess.run(["pg_config", "--bindir"], check=False, capture_output=True, text=True)  # noqa: S607
        folders.append(Path(said.stdout.strip()))
    return folders


def _major(folder: Path) -> int | None:
    """Return the version of the server whose programs are in this folder; None when a server's are not."""
    if not all((folder / program).exists() for program in ("initdb", "postgres", "pg_ctl", "createdb", "dropdb")):
        return None
    said = subprocess.run([folder / "initdb", "--version"], check=False, capture_output=True, text=True)
    number = re.search(r"\) (\d+)", said.stdout)
    return int(number[1]) if number else None
