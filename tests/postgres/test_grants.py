"""A role's name in what `grants` prints: an identifier and nothing more, whatever it holds."""

from __future__ import annotations

from typing import get_args

import pytest

from reactive_orch.errors import ConfigError
from reactive_orch.postgres.grants import Purpose, grants, quoted


@pytest.mark.parametrize(("role", "shown"), [("shop", '"shop"'), ('a"; --', '"a""; --"'), (":role", '":role"')])
def test_a_name_is_quoted(role: str, shown: str) -> None:
    assert quoted(role) == shown


@pytest.mark.parametrize("role", ["", "public", "none", "a\nDROP SCHEMA reactive_orch", "a\x00", "é" * 32])
def test_what_is_no_name_or_does_not_stay_in_its_line_is_refused(role: str) -> None:
    with pytest.raises(ConfigError, match="is no role's name"):
        quoted(role)


@pytest.mark.parametrize("purpose", get_args(Purpose))
def test_each_line_is_one_grant_or_a_comment(purpose: Purpose) -> None:
    lines = grants("shop", purpose).splitlines()
    assert all(
        line.startswith("--") or (line.startswith("GRANT ") and line.endswith(' TO "shop";')) for line in lines if line
    )
    assert ":role" not in "".join(lines)
