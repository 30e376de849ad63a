"""A stage that lacks a program is skipped, with what to install; one that was asked for by name is an error.

What is built from Go modules is there before the first test begins, so that no test's time limit counts its building.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from integration_test.environments.binaries import OF_STAGE
from integration_test.environments.needs import PROGRAMS, missing, required

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", type=Path, help="write what a stage has measured into a section of this Markdown file")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if stage := _stage(item):
            item.add_marker(pytest.mark.environment)
            if lacks := missing(stage):
                item.add_marker(pytest.mark.skip(reason=lacks))


def pytest_collection_finish(session: pytest.Session) -> None:
    stages = {_stage(item) for item in session.items if item.get_closest_marker("skip") is None}
    for stage in stages & OF_STAGE.keys():
        for binary in OF_STAGE[stage]:
            try:
                binary.make(session.config.get_terminal_writer().line)
            except RuntimeError as error:
                pytest.exit(str(error), returncode=1)


def pytest_configure() -> None:
    lacking = {stage: missing(stage) for stage in sorted(required() & PROGRAMS.keys())}
    if said := [f"{stage}: {lacks}" for stage, lacks in lacking.items() if lacks]:
        raise pytest.UsageError("; ".join(said))


def _stage(item: pytest.Item) -> str:
    return item.path.relative_to(HERE).parts[0] if HERE in item.path.parents else ""
