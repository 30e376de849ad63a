"""The files of the status page: all are served, none comes from elsewhere, and libraries are as published."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from tests.http.renew_vendor import VENDOR, digest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
STATIC = VENDOR.parent
OWN = sorted(path for path in STATIC.rglob("*") if path.is_file() and VENDOR not in path.parents)
MANIFESTS = sorted(VENDOR.glob("*/vendor.json"))


def needed(path: Path) -> Iterator[Path]:
    """Yield the files that a file of the page loads."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".js":
        for name in re.findall(r'^(?:import|export) .*? from "([^"]+)";$', text, re.MULTILINE):
            yield (path.parent / name).resolve()
    if path.suffix == ".html":
        for name in re.findall(r'(?:src|href)="static/([^"]+)"', text):
            yield STATIC / name


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.parent.name)
def test_a_library_is_as_published(manifest: Path) -> None:
    vendored = json.loads(manifest.read_text(encoding="utf-8"))
    found = [path for path in manifest.parent.rglob("*") if path.is_file() and path != manifest]
    assert {path.relative_to(manifest.parent).as_posix(): digest(path.read_bytes()) for path in found} == vendored[
        "files"
    ]
    assert "LICENSE" in vendored["files"]
    assert vendored["version"] in vendored["source"]


def test_what_the_page_loads_is_there_and_all_that_is_there_is_loaded() -> None:
    loaded = {STATIC / "index.html"}
    while more := {file for path in loaded for file in needed(path)} - loaded:
        assert [path for path in more if not path.is_file()] == []
        loaded |= more
    vendored = [path for path in loaded if VENDOR in path.parents]
    assert len(vendored) > 2
    assert sorted(loaded.difference(vendored)) == OWN


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.relative_to(STATIC).as_posix())
def test_the_page_needs_no_loosened_policy(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    forbidden = (
        r"""https?://|\bstyle=|\sstyle="|innerHTML|outerHTML|insertAdjacentHTML|\beval\(|<style|unsafe|\son\w+="""
    )
    assert re.findall(forbidden, text) == []


def test_the_wheel_and_the_sdist_have_all_of_it(tmp_path: Path) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in STATIC.rglob("*") if path.is_file()}
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    assert files <= {*zipfile.ZipFile(wheel).namelist()}
    assert files <= {file.relative_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
