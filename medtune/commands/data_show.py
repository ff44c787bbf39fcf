"""Show one row on its way into training: fields, conversation, template, tokens, mask, and what becomes of it.

Trained tokens are green, or stand between [[ ]] where there is no colour. The row's text is shown: that is what the
command is for. With --config it is the row as that config trains on it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from medtune.commands.data_files import add_rows_arguments, open_rows, print_json, progress
from medtune.commands.show import how_painted, paint_sample

if TYPE_CHECKING:
    from medtune.data.preview import Preview

EXAMPLES = """\
  medtune data show train.jsonl
  medtune data show MedQA2019.xlsx --sheet DrugQA --input-column A --output-column D --row 12
  medtune data show train.jsonl --tokenizer ./qwen3 --train-on last --ids
  medtune data show --config ./my_config.py --row 3"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FILE, which row, and how it is trained on."""
    parser.add_argument("file", metavar="FILE", nargs="?", help="data file, folder or hub id (default: the config's)")
    parser.add_argument("--row", type=int, default=1, metavar="N", help="which row, from 1 (default: 1)")
    parser.add_argument("--config", metavar="CFG", help="train as this config says, with its tokenizer and template")
    parser.add_argument("--ids", action="store_true", help="list every token: its id, its text, and if it is trained")
    parser.add_argument("--json", action="store_true", help="print all of it as JSON")
    parser.add_argument("--tokenizer", metavar="NAME", help="a folder or a hub id (default: med-llama-tiny)")
    parser.add_argument("--template", metavar="NAME", help="prompt template (default: the tokenizer's own)")
    parser.add_argument("--system", metavar="TEXT", help="system text of rows that bring none")
    parser.add_argument("--train-on", choices=("answers", "last", "all"), help="default: answers")
    parser.add_argument("--max-length", type=int, metavar="TOKENS", help="default: 2048")
    parser.add_argument("--overflow", choices=("drop", "truncate", "split", "error"), help="default: drop")
    add_rows_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Print the row."""
    from medtune.build import build
    from medtune.data.prepare import Recipe
    from medtune.data.preview import preview_row
    from medtune.data.readers import rows_of
    from medtune.data.templates import resolve_template
    from medtune.errors import UsageError

    values, told = _config(args.config)
    if args.file is None and not told:
        raise UsageError("name a data file, or a config with --config.")
    tokenizer = _tokenizer(args, values)
    recipe = Recipe(
        tokenizer,
        resolve_template(args.template or told.get("prompt_template"), tokenizer),
        args.map_fn or told.get("dataset_map_fn"),
        told.get("system", "") if args.system is None else args.system,
        args.train_on or told.get("train_on", "answers"),
        told.get("placeholders") or {},
        told.get("kind", "answers"),
    )
    rows = open_rows(args, args.file) if args.file else rows_of(build(told["dataset"]))
    max_length = args.max_length or told.get("max_length", 2048)
    overflow = args.overflow or told.get("overflow", "drop")
    shown = preview_row(progress(rows, "reading"), args.row, recipe, max_length, overflow)
    if args.json:
        print_json(shown.as_json(tokenizer))
    else:
        print(_as_text(shown, recipe, args.ids))
    return 0


def _config(name: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """A config's values, and its training data set among them."""
    if name is None:
        return {}, {}
    from medtune.commands import load_config
    from medtune.errors import ConfigError

    values = load_config([name]).values
    told = values.get("train_dataset")
    if not isinstance(told, dict) or "dataset" not in told:
        raise ConfigError(f"{name}: the config has no train_dataset with a dataset in it; name one of medtune's own.")
    return values, told


def _tokenizer(args: argparse.Namespace, values: dict[str, Any]) -> Any:
    from medtune.build import build
    from medtune.models.load import load_tokenizer

    if values and args.tokenizer is None:
        return build(values["tokenizer"])
    return load_tokenizer(args.tokenizer or "med-llama-tiny")


def _as_text(shown: Preview, recipe: Any, with_ids: bool) -> str:
    from medtune.data.kinds import conversations_of
    from medtune.data.prepare import LeftOut
    from medtune.data.templates import Template
    from medtune.errors import printable

    own = "the tokenizer's own chat template"
    lines = [
        f"row       {shown.row.origin}",
        f"fields    {printable(_fields(shown.row.fields))}",
        f"format    {shown.format}",
    ]
    if isinstance(shown.record, LeftOut):
        return "\n".join([*lines, f"fate      left out: {shown.record.reason}"])
    conversations = conversations_of(shown.record)
    roles = [", ".join(m.role + ("*" if m.trained else "") for m in c.messages) for c in conversations]
    parts = [shown.parts[i] for i in range(len(shown.parts))]
    lengths = [f"{len(part['input_ids'])} ({int((part['labels'] >= 0).sum())} trained)" for part in parts]
    lines += [
        f"roles     {'; '.join(roles)} (* trained)",
        *([f"tools     {len(shown.record.tools)}"] if shown.record.tools else []),
        f"template  {recipe.template.name if isinstance(recipe.template, Template) else own}",
        f"tokens    {', '.join(lengths) or 'none'}",
        f"fate      {shown.fate}",
    ]
    for i, part in enumerate(parts, 1):
        number = f"row {i} of {len(parts)}, " if len(parts) > 1 else ""
        lines += ["", f"#### {number}trained tokens {how_painted()}", paint_sample(part, recipe.tokenizer)]
        if with_ids:
            lines += ["", *_tokens(part, recipe.tokenizer)]
    return "\n".join(lines)


def _fields(fields: Any) -> str:
    if not isinstance(fields, dict):
        return f"a {type(fields).__name__}"
    return ", ".join(f"{name} ({type(value).__name__})" for name, value in fields.items())


def _tokens(part: dict[str, Any], tokenizer: Any) -> list[str]:
    """One line for each token: position, id, whether it is trained, text."""
    ids, trained = part["input_ids"].tolist(), (part["labels"] >= 0).tolist()
    return [f"{i:>6} {ids[i]:>7} {'train' if trained[i] else '     '} {tokenizer.decode([ids[i]])!r}"
            for i in range(len(ids))]  # fmt: skip
