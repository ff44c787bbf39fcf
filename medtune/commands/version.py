"""Print the version of medtune.

`medtune doctor` lists the versions of everything it stands on.
"""

from __future__ import annotations

import argparse

from medtune import __version__

EXAMPLES = "  medtune version"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(args: argparse.Namespace) -> int:
    """Print the version."""
    print(__version__)
    return 0
