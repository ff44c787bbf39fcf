"""What `data convert` and `data split` share: the options that say how to read a file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtune.data.records import Conversation


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """--sheet, --input-column, --output-column, --system, --encoding, --map-fn."""
    parser.add_argument("--sheet", help="sheet of an xlsx file (needed if there are several)")
    parser.add_argument("--input-column", metavar="COLUMN", help="column of the questions: header, letter or JSON key")
    parser.add_argument("--output-column", metavar="COLUMN", help="column of the answers")
    parser.add_argument("--system", default="", help="system text for rows that bring none of their own")
    parser.add_argument("--encoding", help="of a text file (default: told from the content)")
    parser.add_argument("--map-fn", metavar="NAME", help="format of the rows (`medtune list-dataset-format`)")


def read(args: argparse.Namespace) -> list[Conversation]:
    """Conversations of `args.file`, read as those options say."""
    from medtune.data.readers import conversation_columns
    from medtune.data.structured import read_conversations

    return read_conversations(
        args.file,
        sheet=args.sheet,
        columns=conversation_columns(args.input_column, args.output_column),
        encoding=args.encoding,
        map_fn=args.map_fn,
        system=args.system,
    )
