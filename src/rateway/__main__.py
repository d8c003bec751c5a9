"""`python -m rateway`: the same as the command `rateway`."""

import sys

from rateway.cli import main

if __name__ == "__main__":
    sys.exit(main())
