"""A worker with named points, and perhaps a planted bug: `python -m integration_test.chaos.worker <arguments>`."""

from __future__ import annotations

import os
import sys

from integration_test.chaos import planted
from integration_test.harness import points
from reactive_orch import cli

if __name__ == "__main__":
    planted.plant(os.environ.get(planted.MUTANT, ""))
    points.install()
    sys.exit(cli.main())
