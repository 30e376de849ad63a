"""The blocks of the README and of the documentation's pages, as they stand there."""

from __future__ import annotations

import re
from textwrap import dedent
from typing import TYPE_CHECKING, NamedTuple

from integration_test.harness.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

README = "README.md"
PAGES = (README, *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))))
RUNNABLE = frozenset({"console", "dockerfile", "python", "sh", "sql"})


class Block(NamedTuple):
    """What stands between two fences."""

    page: str
    language: str
    text: str

    @property
    def commands(self) -> str:
        """What a shell is given: all of it, or of a console the lines behind its prompts."""
        if self.language == "sh":
            return self.text
        return "".join(f"{line}\n" for line in re.findall(r"(?m)^\$ ((?:.*\\\n)*.*)$", self.text))


def blocks(*pages: str) -> Iterator[Block]:
    """Yield those of the pages; of all if none is named."""
    for page in pages or PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for found in re.finditer(r"(?ms)^( *)```(\w+)\n(.*?)^\1```$", text):
            yield Block(page, found[2], dedent(found[3]))


def block(words: str, page: str = README) -> Block:
    """Return the only runnable one of a page that has these words."""
    (one,) = [each for each in blocks(page) if each.language in RUNNABLE and words in each.text]
    return one


def the(words: str, page: str = README) -> str:
    """Return its text. A test that asks for one runs it: `tests/contracts/test_pages.py` counts on it."""
    return block(words, page).text
