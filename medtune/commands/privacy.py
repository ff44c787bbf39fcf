"""What `data phi-scan` and `data redact` share: options, and whether Presidio helps."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtune.privacy.identifiers import Finder

WITHOUT = "English names and places in free text, with no title or label beside them, are not found"


def add_privacy_arguments(parser: argparse.ArgumentParser) -> None:
    """--dataset-info, --sheet, --encoding, --split, --no-presidio."""
    parser.add_argument(
        "--dataset-info", metavar="JSON", help="registry of names (default: ./dataset_info.json, ./data)"
    )
    parser.add_argument("--sheet", help="sheet of an xlsx file (needed if there are several)")
    parser.add_argument("--encoding", help="of a text file (default: told from the content)")
    parser.add_argument("--split", default="train", help="of a folder or a hub data set (default: train)")
    parser.add_argument("--no-presidio", action="store_true", help="do not ask Presidio, which is slow")
    parser.set_defaults(input_column=None, output_column=None)


def other_finder(args: argparse.Namespace) -> tuple[Finder | None, list[str]]:
    """Presidio's finder if it and a model are installed and wanted, and what the report says of it."""
    from medtune.privacy.presidio import installed_model, presidio_finder

    if args.no_presidio:
        return None, [f"Presidio was not asked: {WITHOUT}"]
    if model := installed_model():
        return presidio_finder(model), [f"English names and places by Presidio with {model}"]
    advice = "install medtune[privacy] and a spaCy model such as en_core_web_lg"
    return None, [f"Presidio or its English spaCy model is not installed: {WITHOUT} ({advice})"]
