"""Mix several data sets into one file, by weight, cap and seed.

A source is FILE, FILE*WEIGHT or FILE*WEIGHT<ROWS: weight 0.5 takes half of its rows, drawn by seed, 2 takes each twice;
ROWS is the most it gives. Sources may have different formats; OUT has one, OpenAI messages or preferences.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from medtune.commands.data_files import add_rows_arguments, print_json, progress, reading_options, require_other

EXAMPLES = """\
  medtune data mix mix.jsonl medqa.jsonl "dialogues.csv*0.5" "identity.json*10<500" --seed 1
  medtune data mix mix.jsonl mm hm --dataset-info dataset_info.json --order interleave"""

SOURCE = re.compile(r"(.+?)(?:\*(\d+(?:\.\d*)?|\.\d+))?(?:<(\d+))?")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """OUT SOURCE ..., the order, the seed, and how to read the sources."""
    parser.add_argument("out", metavar="OUT", type=Path, help="a .jsonl or .json file")
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="FILE[*WEIGHT][<ROWS], quoted; or a registry name")
    parser.add_argument("--order", choices=("concat", "interleave"), default="concat", help="default: concat")
    parser.add_argument("--seed", type=int, default=0, help="of draws and of the interleaving (default: 0)")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("-f", "--force", action="store_true", help="replace OUT")
    add_rows_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Write the mix."""
    from collections import Counter

    from medtune.data.mix import read_sources
    from medtune.data.row_file import new_rows
    from medtune.data.survey import source_of
    from medtune.errors import printable

    sources = [_source(text, args.map_fn) for text in args.sources]
    require_other(args.out, *(source["path"] for source in sources))
    rows = read_sources(
        sources,
        mix=args.order,
        seed=args.seed,
        **reading_options(args),
    )
    counts: Counter[str] = Counter()
    with new_rows(args.out, args.force) as write:
        for row in progress(rows, "mix"):
            write(row.fields)
            counts[source_of(row.origin)] += 1
    if args.json:
        print_json({"rows": counts.total(), "sources": dict(counts)})
        return 0
    print(f"{args.out}: {counts.total()} rows")
    for name, count in counts.most_common():
        print(printable(f"{count:>10} ({count / counts.total():.1%})  {name}"))
    return 0


def _source(text: str, map_fn: str | None) -> dict[str, Any]:
    """A source of `read_sources` from FILE[*WEIGHT][<ROWS]."""
    found = SOURCE.fullmatch(text)
    if found is None or Path(text).exists():
        return {"path": text, "dataset_map_fn": map_fn}
    weight, most = found[2], found[3]
    return {
        "path": found[1],
        "weight": float(weight) if weight else 1.0,
        "max_rows": int(most) if most else None,
        "dataset_map_fn": map_fn,
    }
