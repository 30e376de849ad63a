"""From the names on the command line to projections."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reactive_orch.errors import ConfigError, ReactiveOrchError
from reactive_orch.model import Projection

if TYPE_CHECKING:
    from collections.abc import Sequence


def projections_of(names: Sequence[str], option: str = "--projection") -> list[Projection]:
    """Return the projections of MODULE or MODULE:ATTRIBUTE, found from the current folder too; none given: the demo.

    Raises ConfigError, which names the option, for what cannot be imported, and for a module without any.
    """
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    found = [projection for name in names or ["reactive_orch.demo"] for projection in _projections_of(name, option)]
    unique = {id(projection): projection for projection in found}  # a module and one of its attributes may overlap
    return list(unique.values())


def _projections_of(name: str, option: str) -> list[Projection]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ReactiveOrchError:
        raise
    except (Exception, SystemExit) as error:
        msg = f"{option} {name}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error
    if attribute:
        one = getattr(module, attribute, None)
        if not isinstance(one, Projection):
            msg = f"{option} {name}: {module_name} has no projection {attribute!r}"
            raise ConfigError(msg)
        return [one]
    found = [value for value in vars(module).values() if isinstance(value, Projection)]
    if not found:
        msg = f"{option} {name}: the module holds no projection (a function under @projection(...))"
        raise ConfigError(msg)
    return found
