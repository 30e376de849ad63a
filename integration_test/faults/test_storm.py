"""A short storm of faults on each server; `make chaos`, `make soak` and `make mutants` are the long forms."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from integration_test.chaos.run import Options, storm

if TYPE_CHECKING:
    from integration_test.harness.cluster import Cluster


SECONDS = 18.0
SEED = 11
"""Of the storm that is run each time; `make chaos` and `make soak` draw others."""


async def test_nothing_is_lost_or_done_twice_in_a_storm(cluster: Cluster) -> None:
    seed = int(os.environ.get("SEED") or SEED)
    sys.stdout.write(f"repeat it: SEED={seed}\n")
    summary = await storm(cluster, Options(seconds=SECONDS, seed=seed, lethal=False))
    sys.stdout.write(f"{summary}\n")
    assert not summary.findings, f"SEED={seed}: {summary.findings[0]}"
    assert summary.events > 500, "a storm without events proves nothing"
