"""Jaeger and the collector are there before the first test begins, and no test's time limit counts their building."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration_test.environments.jaeger.binaries import BINARIES

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    ours = (item for item in session.items if HERE in item.path.parents)
    if not any(item.get_closest_marker("skip") is None for item in ours):
        return
    for binary in BINARIES:
        try:
            binary.make(session.config.get_terminal_writer().line)
        except RuntimeError as error:
            pytest.exit(str(error), returncode=1)
