"""`python -m shoal` is the `shoal` command."""

import sys

from shoal.node.cli import main

if __name__ == "__main__":
    sys.exit(main())
