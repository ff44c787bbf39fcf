"""List the data formats and the shape of a row of each.

A name goes into a config, dataset_map_fn="alpaca", or after --map-fn; None detects the format.
"""

from __future__ import annotations

import argparse

EXAMPLES = "  medtune list-dataset-format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def main(args: argparse.Namespace) -> int:
    """Print one line a format."""
    from medtune.data.map_fns import DATASET_FORMATS

    width = max(map(len, DATASET_FORMATS))
    for name, map_fn in DATASET_FORMATS.items():
        shape = (map_fn.__doc__ or "").splitlines()[0].removesuffix(".")
        print(f"{name:<{width}}  {shape}")
    return 0
