"""Write a data file again with what may name a person replaced, by made-up values or by tags.

The rows, their fields and their order stay. The same value gets the same surrogate all through the file; the dates of a
row are shifted by one number of days. This is no anonymisation: see docs/privacy.md for what cannot be found.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medtune.commands.data_files import open_rows, print_json, progress, require_other
from medtune.commands.privacy import add_privacy_arguments, other_finder

EXAMPLES = """\
  medtune data redact train.jsonl redacted.jsonl
  medtune data redact records.xlsx redacted.xlsx --style tag
  medtune data redact visits.csv visits-redacted.csv --keep date,age --key-file ./secret"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """IN OUT, what to leave, and how to replace."""
    parser.add_argument("file", metavar="IN", help="data file, folder, registry name or hub id")
    parser.add_argument("out", metavar="OUT", type=Path, help="a .jsonl, .json, .csv, .tsv, .xlsx or .txt file (0600)")
    parser.add_argument("--keep", metavar="KINDS", help="leave these as they are: date,age,...")
    parser.add_argument(
        "--style", choices=["surrogate", "tag"], default="surrogate", help="made-up values (default) or [NAME]"
    )
    parser.add_argument(
        "--key-file",
        type=Path,
        metavar="FILE",
        help="a secret of 16 bytes or more: files redacted with the same one get the same surrogates (default: a new "
        "one, forgotten at the end)",
    )
    parser.add_argument("-f", "--force", action="store_true", help="replace OUT")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    add_privacy_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Redact one file."""
    from medtune.errors import DataError
    from medtune.privacy.redaction import MISSED, Redactor, new_like, parse_kinds
    from medtune.privacy.spans import KINDS
    from medtune.privacy.surrogates import Surrogates

    kept = parse_kinds(args.keep, "--keep")
    require_other(args.out, args.file)
    key = _read_key(args.key_file) if args.key_file else None
    more, notes = other_finder(args)
    redactor = Redactor(Surrogates(key), KINDS.keys() - kept, args.style, more)
    num_rows = 0
    with new_like(args.out, args.force) as write:
        for row in progress(open_rows(args, args.file), "redact"):
            try:
                write(redactor(row.fields, row.origin))
            except DataError as fault:
                raise DataError(f"{row.origin}: {fault}") from None
            num_rows += 1
        if not num_rows:
            raise DataError(f"{args.file}: no rows.")
    if args.json:
        print_json({"file": str(args.out), "rows": num_rows, "replaced": dict(redactor.counts), "kept": sorted(kept)})
        return 0
    counts = ", ".join(f"{kind} {count}" for kind, count in redactor.counts.most_common())
    print(
        f"{args.out}: {num_rows} rows, {redactor.counts.total()} identifiers replaced{f': {counts}' if counts else ''}"
    )
    if kept:
        print(f"left as they are: {', '.join(sorted(kept))}")
    print("This is not anonymised data. Read a sample of it before you share it.")
    print("\n".join(f"note: {note}" for note in [*notes, f"not found by any recogniser here: {MISSED}"]))
    return 0


def _read_key(path: Path) -> bytes:
    from medtune.errors import UsageError
    from medtune.privacy.surrogates import KEY_BYTES

    if not path.is_file():
        raise UsageError(f"{path}: no such file; --key-file wants a secret of {KEY_BYTES} bytes or more.")
    key = path.read_bytes()
    if len(key) < KEY_BYTES:
        raise UsageError(f"{path}: {len(key)} bytes; --key-file wants a secret of {KEY_BYTES} bytes or more.")
    return key
