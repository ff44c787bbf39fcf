"""What `data phi-scan` and `data redact` share: options, and whether Presidio helps."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from medtune.commands.data_files import add_source_arguments

if TYPE_CHECKING:
    from medtune.privacy.identifiers import Finder

WITHOUT = "English names and places in free text, with no title or label beside them, are not found"


def add_privacy_arguments(parser: argparse.ArgumentParser) -> None:
    """How to read the file, and --no-presidio."""
    add_source_arguments(parser)
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
