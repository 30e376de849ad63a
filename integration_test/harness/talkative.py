"""`python -m integration_test.harness.talkative`: the command line, which says sooner and more often how far it is."""

from __future__ import annotations

import sys

from reactive_orch.__main__ import run
from reactive_orch.commands import progress

progress._Lines.after_s = progress._Lines.every_s = progress._Bar.after_s = 0.3  # noqa: SLF001 - five seconds else

if __name__ == "__main__":
    sys.argv[0] = "reactive_orch"
    run()
