"""From the names on the command line to projections."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.errors import ConfigError, ReactiveOrchError, described, place_of
from reactive_orch.model import Projection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType


DEMO = "reactive_orch.demo"
"""What is run where nobody has said what."""


def projections_of(names: Sequence[str], option: str = "--projection") -> list[Projection]:
    """Return the projections of MODULE or MODULE:ATTRIBUTE, found from the current folder too; none given: the demo.

    Raises ConfigError, which names the option, for what cannot be imported, and for a module without any.
    """
    here = str(_here())
    if here not in sys.path:
        sys.path.insert(0, here)
    found = [projection for name in names or [DEMO] for projection in _projections_of(name, option)]
    unique = {id(projection): projection for projection in found}  # a module and one of its attributes may overlap
    return list(unique.values())


def _projections_of(name: str, option: str) -> list[Projection]:
    module_name, colon, attribute = name.partition(":")
    if not all(word.isidentifier() for word in module_name.split(".")) or (colon and not attribute.isidentifier()):
        msg = f"{option} {name!r}: give MODULE or MODULE:FUNCTION as Python imports it, as in shop.projections:mails"
        raise ConfigError(msg)
    module = _imported(module_name, f"{option} {name}")
    found = [value for value in vars(module).values() if isinstance(value, Projection)]
    if attribute:
        one = getattr(module, attribute, None)
        if not isinstance(one, Projection):
            there = f"; it has {', '.join(each.handler.__name__ for each in found)}" if found else ""
            msg = f"{option} {name}: {module_name} has no projection {attribute!r}{there}"
            raise ConfigError(msg)
        return [one]
    if not found:
        msg = f"{option} {name}: the module holds no projection (a function under @projection(...))"
        raise ConfigError(msg)
    return found


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        msg = f"the current folder, where projections are looked for, cannot be used: {error.strerror}: go to another"
        raise ConfigError(msg) from error


def _imported(module: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ReactiveOrchError as error:  # of a decorator: it says what is wrong with which projection
        msg = f"{where}: {error}{_at(error)}"
        raise ConfigError(msg) from error
    except ModuleNotFoundError as error:
        is_it = error.name is not None and f"{module}.".startswith(f"{error.name}.")
        reason = f"there is none in {_here()} or what is installed" if is_it else f"{described(error)}{_at(error)}"
        msg = f"{where}: importing {module!r} failed: {reason}"
        raise ConfigError(msg) from error
    except (Exception, SystemExit) as error:
        msg = f"{where}: importing {module!r} failed: {described(error)}{_at(error)}"
        raise ConfigError(msg) from error


def _at(error: BaseException) -> str:
    """Return the user's line at which an import has failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    place = place_of(error)
    return f" at {place}" if place else ""
