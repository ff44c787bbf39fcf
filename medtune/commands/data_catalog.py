"""List the known data sets: what they hold, whose they are, and how to get and train on them.

A config reads one by data_path="catalog:NAME": a local copy in $MEDTUNE_DATA (or ./data), or else the hub. Name one to
see all that is known of it.
"""

from __future__ import annotations

import argparse
import json
from itertools import groupby

from medtune.data.catalog import PREFIX, DataSet, catalog, matching, named

EXAMPLES = """  medtune data catalog
  medtune data catalog -p reward
  medtune data catalog cmtmedqa
  medtune data catalog -p zh --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, -p, --json."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="of one data set, to see all of it")
    parser.add_argument(
        "-p", "--pattern", default="", help="only data sets with this text in their name, stage, place or language"
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects, for machines")


def main(args: argparse.Namespace) -> int:
    """Print a table, one data set in full, or JSON."""
    found = [named(args.name)] if args.name else list(matching(args.pattern))
    if args.json:
        print(json.dumps([{**entry.as_dict(), "config": _config(entry)} for entry in found], ensure_ascii=False))
    elif args.name:
        _print_one(found[0])
    elif not found:
        print(f"nothing in the catalogue's {len(catalog())} data sets contains {args.pattern!r}")
    else:
        for stage, entries in groupby(found, key=lambda entry: entry.stage):
            print(f"{stage}:")
            for entry in entries:
                rows = f"{entry.rows:,}" if entry.rows else "?"
                print(f"  {entry.name:<26}{entry.language:<6}{rows:>11}  {entry.licence:<14}{entry.address}")
    return 0


def _print_one(entry: DataSet) -> None:
    map_fn = entry.map_fn or "none: bring the rows into one of the shapes of `medtune list-dataset-format` first"
    told = {
        "trains": entry.stage,
        "from": entry.address,
        "files": entry.files or entry.place.rsplit("/", 1)[-1],
        "language": entry.language,
        "rows": f"{entry.rows:,}" if entry.rows else "not stated",
        "licence": entry.licence,
        "a row": entry.shape,
        "columns": ", ".join(f"{field} is {column}" for field, column in (entry.columns or {}).items()),
        "map function": map_fn,
        "config": _config(entry) or "",
        "here": str(entry.local_copy() or "no"),
        "to get it": f"It is read from the hub. {entry.get}" if entry.on_hub else entry.how_to_get(),
    }
    print(f'{entry.name}: data_path="{PREFIX}{entry.name}"' if entry.map_fn else entry.name)
    for key, text in told.items():
        if text:
            print(f"  {key:<13}{text}".rstrip())


def _config(entry: DataSet) -> str | None:
    """A built-in config that trains on a data set, or a name of one; None if its rows need shaping."""
    from medtune.config import builtin_configs, data_configs
    from medtune.config_names import split_name

    if entry.name not in data_configs():
        return None
    own = (config for config in builtin_configs() if (parts := split_name(config)) and parts.data == entry.name)
    return next(own, f"MODEL_qlora_{entry.name}_e1")
