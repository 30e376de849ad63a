"""What a worker checks of its projections before anything else."""

from __future__ import annotations

from typing import Any

import pytest

from reactive_orch import ConfigError, projection
from reactive_orch.runtime.membership.registration import checked


@projection("one")
async def one(event: Any, tx: Any) -> None: ...


@pytest.mark.parametrize(
    ("projections", "complaint"),
    [
        ([], "no projection to run"),
        ([one, one], "two projections are named 'one'"),
        ([one, one.handler], r"no projection \(@projection makes one\): <function one"),
    ],
)
def test_what_is_no_list_of_projections_is_refused(projections: list[Any], complaint: str) -> None:
    checked([one])
    with pytest.raises(ConfigError, match=complaint):
        checked(projections)
