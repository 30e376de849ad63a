"""`python -m reactive_orch`."""

import sys

from reactive_orch.cli import main
from reactive_orch.last_resort import end_after

if __name__ == "__main__":
    code = main()
    end_after()  # Python waits for threads
    sys.exit(code)
