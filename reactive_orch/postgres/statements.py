"""The loader of named statements: every SQL statement lives in a .sql file beside the module that sends it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def load_statements(sql_file: Path) -> SimpleNamespace:
    """Return the statements of a .sql file as attributes, under the names of their `-- name:` lines."""
    parts = re.split(r"^-- name: (\w+)\n", sql_file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return SimpleNamespace(**dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True)))
