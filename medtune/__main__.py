"""`python -m medtune` is the `medtune` command."""

import sys

from medtune.cli import main

if __name__ == "__main__":
    sys.exit(main())
