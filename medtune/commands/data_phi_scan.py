"""Count what may name a person in data files: by kind, field and file, with places, without the text.

English and Chinese: names, ID numbers, phones, record numbers, dates, addresses, e-mail and more (docs/privacy.md). A
scan that finds nothing does not show that the data is anonymous. The exit code is 0; with --fail, 2 if anything is
found.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from medtune.commands.data_files import open_rows, print_json, progress
from medtune.commands.privacy import add_privacy_arguments, other_finder

if TYPE_CHECKING:
    from medtune.errors import DataError

EXAMPLES = """\
  medtune data phi-scan train.jsonl
  medtune data phi-scan ./records --fields --only name,phone,resident_id
  medtune data phi-scan train.jsonl --json --fail > identifiers.json"""

NUM_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE ..., what to show, and how to read them."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="data file, folder, registry name or hub id")
    parser.add_argument("--only", metavar="KINDS", help="look for these alone: name,phone,...")
    parser.add_argument("--fields", action="store_true", help="count by field too")
    parser.add_argument("--all", action="store_true", help=f"list every place, not {NUM_SHOWN} of a kind")
    parser.add_argument("--show-text", action="store_true", help="show what was found (it may be a patient's)")
    parser.add_argument("--json", action="store_true", help="print counts and all places as JSON")
    parser.add_argument("--fail", action="store_true", help="exit with 2 if anything is found")
    add_privacy_arguments(parser)


class Report:
    """What a scan has found so far.

    Args:
        keep: so many places of each kind; None for all.
        show_text: keep the text of each too.
    """

    def __init__(self, keep: int | None, show_text: bool) -> None:
        self.keep = keep
        self.show_text = show_text
        self.num_rows = 0
        self.num_found_in = 0
        self.unreadable: list[str] = []
        self.by_kind: Counter[str] = Counter()
        self.by_field: Counter[tuple[str, str]] = Counter()
        self.by_file: Counter[tuple[str, str]] = Counter()
        self.places: dict[str, list[dict[str, Any]]] = {}

    def add(self, file: str, origin: str, found: list[tuple[Any, Any]]) -> None:
        """Count one row: (text, span) pairs of `medtune.privacy.redaction.scan`."""
        self.num_rows += 1
        self.num_found_in += bool(found)
        for text, (kind, start, end) in found:
            self.by_kind[kind] += 1
            self.by_field[re.sub(r"\[\d+\]", "[]", text.field), kind] += 1
            self.by_file[file, kind] += 1
            kept = self.places.setdefault(kind, [])
            if self.keep is None or len(kept) < self.keep:
                place = {"kind": kind, "origin": origin, "field": text.field, "start": start, "end": end}
                kept.append({**place, "text": text.value[start:end]} if self.show_text else place)

    def unread(self, fault: DataError) -> None:
        """Count one row that cannot be read."""
        self.unreadable.append(str(fault))


def main(args: argparse.Namespace) -> int:
    """Scan the files."""
    from medtune.errors import DataError
    from medtune.privacy.redaction import MISSED, parse_kinds, scan
    from medtune.privacy.spans import KINDS

    kinds = parse_kinds(args.only, "--only") or KINDS
    more, notes = other_finder(args)
    notes.append(f"not found by any recogniser here: {MISSED}")
    report = Report(None if args.json or args.all else NUM_SHOWN, args.show_text)
    for file in args.files:
        for row in progress(open_rows(args, file).each(report.unread), "scan"):
            try:
                found = list(scan(row.fields, kinds, more))
            except DataError as fault:
                report.unread(fault)
                continue
            report.add(_file_of(row.origin), row.origin, found)
    if report.unreadable:
        notes.insert(
            0, f"{len(report.unreadable)} rows could not be read and were not searched; see `medtune data check`"
        )
    if args.json:
        print_json(_as_dict(report, notes))
    else:
        _print(report, notes, args.fields)
    return 2 if args.fail and report.by_kind else 0


def _file_of(origin: str) -> str:
    """The file's part of an origin: "a.zip!b/c.csv:7" -> "a.zip!b/c.csv"."""
    return re.sub(r"(?::\d+|\[\d+\]|![A-Z]{1,3}\d+)$", "", origin)


def _tables(counts: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    tables: dict[str, dict[str, int]] = {}
    for (name, kind), count in sorted(counts.items()):
        tables.setdefault(name, {})[kind] = count
    return tables


def _as_dict(report: Report, notes: list[str]) -> dict[str, Any]:
    return {
        "rows": report.num_rows,
        "rows_with_identifiers": report.num_found_in,
        "rows_unreadable": len(report.unreadable),
        "counts": dict(report.by_kind.most_common()),
        "by_field": _tables(report.by_field),
        "by_file": _tables(report.by_file),
        "places": [place for kept in report.places.values() for place in kept],
        "notes": notes,
    }


def _print(report: Report, notes: list[str], fields: bool) -> None:
    from medtune.errors import printable
    from medtune.privacy.spans import KINDS

    for kind in (kind for kind in KINDS if kind in report.by_kind):
        print(f"{kind}: {report.by_kind[kind]}; {KINDS[kind]}")
        for place in report.places[kind]:
            text = f"  [{place['text']}]".replace("\n", "\\n") if "text" in place else ""
            print(printable(f"  {place['origin']}: {place['field']} {place['start']}-{place['end']}{text}"))
        if report.by_kind[kind] > len(report.places[kind]):
            print(f"  ... {report.by_kind[kind] - len(report.places[kind])} more; --all lists them")
    tables = {"field": _tables(report.by_field) if fields else {}, "file": _tables(report.by_file)}
    for what, table in tables.items():
        if table and (what == "field" or len(table) > 1):
            print(f"by {what}:")
        for name, counts in table.items() if what == "field" or len(table) > 1 else ():
            print(printable(f"  {name}: {', '.join(f'{kind} {count}' for kind, count in counts.items())}"))
    print(f"{report.num_rows} rows: {sum(report.by_kind.values())} identifiers in {report.num_found_in} of them")
    print("\n".join(f"note: {note}" for note in notes))
