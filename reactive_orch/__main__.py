"""`python -m reactive_orch`."""

import sys

from reactive_orch.cli import main

if __name__ == "__main__":
    sys.exit(main())
