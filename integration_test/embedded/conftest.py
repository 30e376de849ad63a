"""What the embedded servers of these tests share: making it takes a second."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reactive_orch.embedded import programs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def copied() -> Iterator[Path]:
    """A copy of the programs, as an embedded server makes one beside its data."""
    parent = Path(tempfile.mkdtemp(dir="/tmp"))
    parent.chmod(0o755)
    programs.copy_to(parent / "programs")
    yield parent / "programs"
    shutil.rmtree(parent)
