"""docs/protocol.md and the code speak of the same things: every citation is found, every word is used, none twice."""

from __future__ import annotations

import functools
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in sorted((ROOT / "reactive_orch").rglob("*"))
    if path.suffix in {".py", ".sql"}
}
_CITED = re.compile(r"\bprotocol (\d+(?:\.\d+)?(?:(?:, | to | and )\d+(?:\.\d+)?)*)")

GIVEN_UP = {
    "crowd": "debouncing is a branch of core.turn",
    "enrolment": "registration",
    "hearers": "listeners",
    "shelf": "window cache",
    "tail": "follower",
    "tenant": "worker",
    "trouble": "attempts",
    "unheard": "missed",
}
"""Names that meant what another name means now; they must not come back into the code."""


def rules() -> set[str]:
    """Return the numbers that the page gives: of its sections, and of the rules in them."""
    found, section = set(), ""
    for line in PAGE.splitlines():
        if heading := re.match(r"## (\d+)\. ", line):
            section = heading[1]
            found.add(section)
        elif rule := re.match(r"(\d+)\. ", line):
            found.add(f"{section}.{rule[1]}")
    return found


def cited() -> dict[str, set[str]]:
    """Return which rules which files cite."""
    return {
        name: {number for listed in _CITED.findall(text) for number in re.findall(r"\d+(?:\.\d+)?", listed)}
        for name, text in SOURCES.items()
    }


def test_every_citation_is_found_on_the_page() -> None:
    wrong = {name: sorted(numbers - rules()) for name, numbers in cited().items() if numbers - rules()}
    assert not wrong


def test_every_section_with_rules_is_cited_where_it_is_built() -> None:
    sections = {number.partition(".")[0] for numbers in cited().values() for number in numbers}
    assert sections >= {"2", "3", "4", "5", "6"}


def glossary() -> list[str]:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", PAGE, flags=re.MULTILINE)
    return [row.strip() for row in rows if row.strip() not in {"word", "---"}]


@pytest.mark.parametrize("word", glossary())
def test_the_words_of_the_glossary_are_those_of_the_code(word: str) -> None:
    assert any(re.search(word, text, re.IGNORECASE) for text in SOURCES.values()), "nobody says it"
    name = re.compile(word.removesuffix(" lane").replace(" ", "_?").replace("-", "_"), re.IGNORECASE)
    assert any(name.search(each) for each in _names()), "it names nothing"


def test_the_glossary_has_each_word_once() -> None:
    assert len(glossary()) == len(set(glossary()))


def test_names_that_were_given_up_do_not_come_back() -> None:
    parts = {part for name in _names() for part in re.findall(r"[A-Z]?[a-z]+", name)}
    assert not {part.lower() for part in parts} & GIVEN_UP.keys()


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(
        token.string
        for name, text in SOURCES.items()
        if name.endswith(".py")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.NAME
    )
