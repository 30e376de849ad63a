"""`python -m reactive_orch`, and the script `reactive-orch`."""

import sys
from typing import NoReturn

from reactive_orch.cli import main
from reactive_orch.process.last_resort import at_signals, end_after, ignore_signals_last


def run() -> NoReturn:
    """Run one command and end the process."""
    ignore_signals_last()
    code = main()
    end_after()  # Python waits for threads
    at_signals()
    sys.exit(code)


if __name__ == "__main__":
    run()
