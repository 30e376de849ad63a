"""`python -m reactive_orch`, and the script `reactive-orch`."""

import sys

from reactive_orch.process import interrupts


def run() -> None:
    """Run one command and end the process."""
    interrupts.end_at_once()  # what is imported below takes half a second
    from reactive_orch.cli import main
    from reactive_orch.process.last_resort import at_signals, end_after, ignore_signals_last

    ignore_signals_last()
    try:
        code = main()
        end_after()  # Python waits for threads
        at_signals()
    except KeyboardInterrupt:
        interrupts.end()
    sys.exit(code)


if __name__ == "__main__":
    run()
