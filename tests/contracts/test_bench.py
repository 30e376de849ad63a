"""The measurements, which no other check runs, still give statements what they ask for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import plans
from reactive_orch.postgres import log
from reactive_orch.postgres.statements import load_statements

SQL = Path(log.__file__).parent
END = 1_000_000


@pytest.mark.parametrize(("name", "arguments"), [*plans.statements(END), *(plans.window(n, 0, END) for n in (64, 1))])
def test_each_parameter_is_given(name: str, arguments: tuple[object, ...]) -> None:
    file, _, statement = name.partition(".")
    parameters = re.findall(r"\$(\d+)", vars(load_statements(SQL / f"{file}.sql"))[statement])
    assert len(arguments) == max(map(int, parameters))
