"""Check every row of data files: what is wrong, by class, with file, row and field.

A fault is a row that cannot be trained on, or would teach what nobody meant; a note is a row worth a look. The text of
rows is not shown unless --show-text asks for it. The exit code is 0 if at most --max-bad-rows rows have a fault
(default: none), else 2.
"""

from __future__ import annotations

import argparse
import contextlib
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
    from medtune.data.defects import Finding
    from medtune.data.doctor import Checkup, Doctor

EXAMPLES = """\
  medtune data check train.jsonl
  medtune data check *.jsonl --max-bad-rows 0.5% --good good.jsonl --quarantine bad.jsonl
  medtune data check train.jsonl --max-length 2048 --tokenizer ./base --all"""

NUM_SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE ..., what is too much, where rows go, and how to read them."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="data file, folder, registry name or hub id")
    parser.add_argument(
        "--max-bad-rows", default="0", metavar="LIMIT", help="rows with a fault that pass: 10, or 0.5%% (default: 0)"
    )
    parser.add_argument("--strict", action="store_true", help="count rows with a note as bad rows too")
    parser.add_argument("--good", type=Path, metavar="OUT", help="write the good rows, as they are, to this file")
    parser.add_argument("--quarantine", type=Path, metavar="OUT", help="write the bad rows, with their defects (0600)")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="a row with more tokens is a fault")
    parser.add_argument("--all", action="store_true", help=f"list every finding, not {NUM_SHOWN} of a class")
    parser.add_argument("--show-text", action="store_true", help="show the text around a defect")
    parser.add_argument("--json", action="store_true", help="print counts and findings as JSON")
    parser.add_argument("-f", "--force", action="store_true", help="replace the output files")
    add_tokenizer_arguments(parser)
    add_rows_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Check the files."""
    from medtune.data.doctor import Doctor, parse_limit

    passes = parse_limit(args.max_bad_rows, "--max-bad-rows")
    doctor = Doctor(args.map_fn, counter(args) if args.max_length else None, args.max_length)
    findings = _check(args, doctor)
    told = doctor.told
    num_bad = told.num_bad + (told.num_noted if args.strict else 0)
    passed = passes(num_bad, told.num_rows)
    if args.json:
        listed = [_as_dict(finding, args.show_text) for of_class in findings.values() for finding in of_class]
        print_json({**_counts(told), "passed": passed, "findings": listed})
    else:
        _print(findings, told, args)
        limit = "" if passed else f" (more than --max-bad-rows {args.max_bad_rows})"
        print(f"{told.num_rows} rows: {told.num_rows - num_bad} good, {num_bad} bad{limit}")
    return 0 if passed else 2


def _check(args: argparse.Namespace, doctor: Doctor) -> dict[str, list[Finding]]:
    """Findings by class, all of them only if asked for; good and bad rows go where the options say."""
    from medtune.data.row_file import new_rows

    findings: dict[str, list[Finding]] = {}
    with contextlib.ExitStack() as files:
        good = files.enter_context(new_rows(args.good, args.force)) if args.good else None
        bad = files.enter_context(new_rows(args.quarantine, args.force, private=True)) if args.quarantine else None
        for file in args.files:
            for row, found in progress(doctor.check(open_rows(args, file)), "check"):
                for finding in found:
                    of_class = findings.setdefault(finding.defect, [])
                    if args.all or args.json or len(of_class) < NUM_SHOWN:
                        of_class.append(finding)
                is_bad = any(finding.is_fault for finding in found) or (args.strict and bool(found))
                if is_bad and bad:
                    defects = [_as_dict(finding, False) for finding in found]
                    bad({"defects": defects, "row": row.fields if row else None})
                elif not is_bad and good and row:
                    good(row.fields)
    return findings


def _counts(told: Checkup) -> dict[str, Any]:
    return {
        "rows": told.num_rows,
        "bad": told.num_bad,
        "noted": told.num_noted,
        "format": told.map_fn.removesuffix("_map_fn"),
        "defects": dict(told.defects.most_common()),
    }


def _as_dict(finding: Finding, show_text: bool) -> dict[str, Any]:
    shown = {**finding._asdict(), "fault": finding.is_fault}
    return shown if show_text else {key: value for key, value in shown.items() if key != "text"}


def _print(findings: dict[str, list[Finding]], told: Checkup, args: argparse.Namespace) -> None:
    """The findings by class, faults first."""
    from medtune.data.defects import DEFECTS, FAULTS
    from medtune.errors import printable

    for defect in (name for name in DEFECTS if name in findings):
        kind = "fault" if defect in FAULTS else "note"
        print(f"{kind} {defect}: {told.defects[defect]} rows; {DEFECTS[defect]}")
        for finding in findings[defect]:
            place = f"{finding.origin}: {finding.field}" if finding.field else finding.origin
            text = f"  [{finding.text}]".replace("\n", "\\n") if args.show_text and finding.text else ""
            print(printable(f"  {place}: {finding.told}{text}"))
        if not args.all and told.defects[defect] > len(findings[defect]):
            print(f"  ... {told.defects[defect] - len(findings[defect])} more; --all lists them")
