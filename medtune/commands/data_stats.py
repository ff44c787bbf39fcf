"""Count what data files hold: rows, turns, tokens, trained tokens, lengths, by source and language.

Tokens are those that training sees, the template's included. Quantiles are of the tokens of a row.
"""

from __future__ import annotations

import argparse
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
    from medtune.data.survey import Group, Survey

EXAMPLES = """\
  medtune data stats train.jsonl
  medtune data stats a.jsonl b.csv --tokenizer ./base --json"""

NUM_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE ..., the tokenizer, and how to read the files."""
    parser.add_argument("files", metavar="FILE", nargs="+", help="data file, folder, registry name or hub id")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    add_tokenizer_arguments(parser)
    add_rows_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Print the figures."""
    from medtune.data.survey import Surveyor

    surveyor = Surveyor(args.map_fn, counter(args))
    for file in args.files:
        for _ in progress(surveyor.read(open_rows(args, file)), "count"):
            pass
    told = surveyor.told
    if args.json:
        print_json(as_dict(told))
    else:
        print("\n".join(lines(told)))
    return 0


def as_dict(told: Survey) -> dict[str, Any]:
    """The figures for a machine."""
    from medtune.data.lengths import quantiles

    return {
        **told.sums(),
        "unreadable": told.num_unreadable,
        "misfits": told.num_misfits,
        "skipped": dict(told.skipped),
        "not_rendered": told.num_unrendered,
        "distinct_questions": told.distinct_questions,
        "kinds": dict(told.kinds),
        "roles": dict(told.roles),
        "answers_per_row": {str(number): count for number, count in sorted(told.turns.items())},
        "tokens_per_row": quantiles(told.lengths),
        "trained_tokens_per_row": quantiles(told.trained),
        "sources": {name: vars(group) for name, group in told.sources.items()},
        "languages": {name: vars(group) for name, group in told.languages.items()},
    }


def lines(told: Survey) -> list[str]:
    """The figures for a reader."""
    from medtune.data.lengths import quantiles

    sums = told.sums()
    shown = [f"rows {sums['rows']}, answers {sums['turns']}, different first questions {told.distinct_questions}"]
    if len(told.lengths):
        share = sums["trained_tokens"] / max(sums["tokens"], 1)
        shown.append(f"tokens {sums['tokens']}, trained {sums['trained_tokens']} ({share:.1%})")
    counts = {
        "cannot be read": told.num_unreadable,
        "fit no format": told.num_misfits,
        "the template cannot render, or have nothing to train on": told.num_unrendered,
    }
    shown += [f"rows that {what}: {count}" for what, count in counts.items() if count]
    shown += [f"rows with nothing to learn, {reason}: {count}" for reason, count in told.skipped.items()]
    for name, values in (("tokens of a row", told.lengths), ("trained tokens of a row", told.trained)):
        if len(values):
            shown.append(f"{name}: " + ", ".join(f"{q} {value}" for q, value in quantiles(values).items()))
    shown += _table("language", told.languages)
    shown += _table("source", told.sources)
    return shown


def _table(what: str, groups: dict[str, Group]) -> list[str]:
    from medtune.errors import printable

    largest = sorted(groups.items(), key=lambda item: -item[1].rows)
    shown = [f"{'rows':>10} {'tokens':>12} {'trained':>12}  {what}"]
    shown += [f"{g.rows:>10} {g.tokens:>12} {g.trained:>12}  {printable(name)}" for name, g in largest[:NUM_SHOWN]]
    return [*shown, f"{'':>38}... {len(largest) - NUM_SHOWN} more"] if len(largest) > NUM_SHOWN else shown
