"""Say what a data file is: container, format and how sure, fields, lengths, languages, roles, three samples.

Lengths are in tokens, as training counts them, with the template. --no-text leaves the samples out; the plot and all
other lines never hold text of the rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.commands.data_files import (
    add_rows_arguments,
    add_tokenizer_arguments,
    counter,
    open_rows,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from medtune.data.survey import Survey

EXAMPLES = """\
  medtune data inspect MedQA2019.xlsx --sheet DrugQA
  medtune data inspect train.jsonl --plot lengths.png --tokenizer ./base
  medtune data inspect records.csv --no-text --json"""

NUM_SAMPLES = 3
WIDTH = 400
NUM_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, what is shown, and how to read it."""
    parser.add_argument("file", metavar="FILE", help="data file, folder, registry name or hub id")
    parser.add_argument("--no-text", action="store_true", help="show no samples")
    parser.add_argument("--full", action="store_true", help=f"show samples whole, not {WIDTH} characters of a field")
    parser.add_argument("--plot", type=Path, metavar="OUT", help="draw the lengths into this .png file")
    parser.add_argument("--seed", type=int, default=0, help="of the samples (default: 0)")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("-f", "--force", action="store_true", help="replace the picture")
    add_tokenizer_arguments(parser)
    add_rows_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Print what the file is."""
    from medtune.data.describe import describe
    from medtune.data.lengths import plot_lengths
    from medtune.data.row_file import new_file, require_new
    from medtune.data.survey import Surveyor
    from medtune.errors import DataError

    if args.plot:
        require_new(args.plot, args.force, (".png",))
    rows = open_rows(args, args.file)
    container = describe(args.file, args.dataset_info, args.encoding)
    surveyor = Surveyor(args.map_fn, counter(args), 0 if args.no_text else NUM_SAMPLES, args.seed)
    for _ in progress(surveyor.read(rows), "inspect"):
        pass
    told = surveyor.told
    if not told.num_rows:
        raise DataError(f"{args.file}: no rows that can be read.")
    if args.plot and len(told.lengths):
        with new_file(args.plot) as temporary:
            plot_lengths(told.lengths, temporary, Path(args.file).name)
    if args.json:
        print_json({"container": container, **_as_dict(told)})
    else:
        _print(args, container, told)
    return 0


def _as_dict(told: Survey) -> dict[str, Any]:
    from medtune.commands.data_stats import as_dict

    return {
        "format": told.format,
        "sure": _sure(told),
        "why": told.why,
        "rivals": told.rivals,
        "fields": {
            name: {"filled": stats.filled, "types": dict(stats.kinds), "longest": stats.longest}
            for name, stats in _named_fields(told)
        },
        **as_dict(told),
        "samples": [{"origin": row.origin, "row": row.fields} for row in told.samples],
    }


def _sure(told: Survey) -> float:
    """Share of the rows that the format reads."""
    return (told.num_rows - told.num_misfits) / max(told.num_rows, 1)


def _named_fields(told: Survey) -> list[tuple[str, Any]]:
    """The fields; of a table without a header row, by number, for its first row is data."""
    from medtune.data.records import shown_names

    named = shown_names(told.fields)
    names = named or [f"column {number}" for number in range(1, len(told.fields) + 1)]
    return list(zip(names, told.fields.values(), strict=True))


def _print(args: argparse.Namespace, container: dict[str, str], told: Survey) -> None:
    from medtune.commands.data_stats import lines
    from medtune.data.lengths import histogram_lines
    from medtune.errors import printable

    print(printable(f"{args.file}: " + ", ".join(f"{key} {value}" for key, value in container.items())))
    if told.format:
        print(printable(f"format {told.format}: reads {_sure(told):.1%} of {told.num_rows} rows; {told.why}"))
    else:
        print("format: none fits; name the columns, --input-column and --output-column, or --map-fn")
    if told.rivals:
        rivals = [f"{name} {share:.0%}" for name, share in list(told.rivals.items())[:NUM_SHOWN]]
        print(f"other formats that would read the first rows: {', '.join(rivals)}")
    print("fields: filled, longest, types")
    for name, stats in _named_fields(told):
        types = ", ".join(f"{kind} {count}" for kind, count in stats.kinds.most_common())
        print(printable(f"  {name:<24} {stats.filled / told.num_rows:>6.1%} {stats.longest:>8}  {types}"))
    for what, counts in (("records", told.kinds), ("roles", told.roles), ("answers a row", told.turns)):
        if counts:
            print(f"{what}: " + ", ".join(f"{name} {count}" for name, count in counts.most_common(NUM_SHOWN)))
    print("\n".join(lines(told)))
    if len(told.lengths):
        print("\n".join(["tokens of a row      rows", *histogram_lines(told.lengths)]))
    if args.plot and len(told.lengths):
        print(f"picture: {args.plot}")
    for row in told.samples:
        print(printable(f"sample {row.origin}\n{_shown(row.fields, args.full)}"))


def _shown(fields: Any, full: bool) -> str:
    """A row's fields, one a line, each cut unless they are wanted in full."""
    lines = []
    for key, value in fields.items() if isinstance(fields, dict) else [("", fields)]:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        cut = text if full or len(text) <= WIDTH else f"{text[:WIDTH]}... ({len(text)} characters)"
        lines.append(f"  {key}: {cut}".replace("\n", "\n    "))
    return "\n".join(lines)
