"""The snippets of the README, as they stand there."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import TYPE_CHECKING

from integration_test.harness.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


def snippets(page: str = "README.md") -> Iterator[str]:
    """Yield each indented block."""
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in re.finditer(r"(?:^ {4}.*\n(?:\n+(?= {4}))?)+", text, re.MULTILINE):
        yield dedent(found[0])


def python(page: str = "README.md") -> list[str]:
    """Return those in Python."""
    return [
        each for each in snippets(page) if re.search(r"^(async |def |@|from |import |\s+await )", each, re.MULTILINE)
    ]


def the(words: str) -> str:
    """Return the only snippet that has these words."""
    (one,) = [each for each in snippets() if words in each]
    return one
