"""The configurations of `otel/`, read by the programs that they are for."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from integration_test.environments.binaries import JAEGER, OTELCOL
from integration_test.environments.jaeger.stack import COLLECTOR_CONFIG, JAEGER_CONFIG

if TYPE_CHECKING:
    from pathlib import Path

    from integration_test.environments.binaries import Binary

PROGRAMS = [
    pytest.param(OTELCOL, COLLECTOR_CONFIG, id="collector"),
    pytest.param(JAEGER, JAEGER_CONFIG, id="jaeger"),
]


def validated(binary: Binary, config: Path) -> subprocess.CompletedProcess[str]:
    command = [str(binary.path), "validate", f"--config={config}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("binary", "config"), PROGRAMS)
def test_the_programs_accept_them_as_they_are(binary: Binary, config: Path) -> None:
    done = validated(binary, config)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("binary", "config"), PROGRAMS)
def test_a_word_that_they_do_not_know_would_be_refused(binary: Binary, config: Path, tmp_path: Path) -> None:
    text = config.read_text(encoding="utf-8")
    assert "processors: [" in text
    (tmp_path / "wrong.yaml").write_text(text.replace("processors: [", "procesors: ["))
    assert validated(binary, tmp_path / "wrong.yaml").returncode != 0
