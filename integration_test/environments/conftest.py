"""A stage that lacks a program is skipped, with what to install; one that was asked for by name is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration_test.environments.needs import PROGRAMS, missing, required

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            stage = item.path.relative_to(HERE).parts[0]
            item.add_marker(pytest.mark.environment)
            if lacks := missing(stage):
                item.add_marker(pytest.mark.skip(reason=lacks))


def pytest_configure() -> None:
    lacking = {stage: missing(stage) for stage in sorted(required() & PROGRAMS.keys())}
    if said := [f"{stage}: {lacks}" for stage, lacks in lacking.items() if lacks]:
        raise pytest.UsageError("; ".join(said))
