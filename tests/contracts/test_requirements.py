"""What `make install` installs: every requirement of pyproject.toml, pinned, with hashes, from whatever registry."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINNED: dict[str, list[str]] = {}
"""Package → its versions: some have one for older Pythons, and one for newer."""
for _name, _version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, flags=re.MULTILINE):
    PINNED.setdefault(_name, []).append(_version)


def wanted() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"]
    ours, *others = extras["dev"]
    of_extras = [*others, *(text for extra in sorted(Requirement(ours).extras) for text in extras[extra])]
    named = [*PROJECT["project"]["dependencies"], *PROJECT["build-system"]["requires"], *of_extras]
    return [text for text in named if not text.startswith("reactive_orch[")]


@pytest.mark.parametrize("text", sorted(set(wanted())))
def test_every_requirement_is_pinned_to_a_version_that_it_allows(text: str) -> None:
    requirement = Requirement(text)
    assert requirement.name.lower() in PINNED, "run `make lock`"
    assert all(map(requirement.specifier.contains, PINNED[requirement.name.lower()])), "run `make lock`"


def test_every_package_has_hashes_and_none_an_address() -> None:
    packages = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == sum(map(len, PINNED.values())) > 40
    assert all("--hash=sha256:" in package for package in packages)
    assert "://" not in LOCK
