"""Copy a built-in config, to edit it.

NAME need not be in the list: a known model, a method, a known data set and a number of epochs make a config too
(`medtune list-cfg --models`, `--data`).

The copy sets the names of PART 1 that this config is about and takes the others from its base; any name of the base's
PART 1 may be added. With --expand it is the whole five-part file. Both train the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medtune.config import compose, find, with_data_settings
from medtune.errors import UsageError

EXAMPLES = """  medtune copy-cfg internlm_chat_7b_qlora_oasst1_e3 .
  medtune copy-cfg qwen3_4b_lora_cmtmedqa_e2 .
  medtune copy-cfg med_llama_tiny_lora_medqa_e3 ./configs --expand"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """NAME, FOLDER, -f, --expand."""
    parser.add_argument("name", metavar="NAME", help="a name from `medtune list-cfg`, or one made like them")
    parser.add_argument("folder", metavar="FOLDER", help="where NAME_copy.py is written")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite an earlier copy")
    parser.add_argument("--expand", action="store_true", help="write all five parts, every setting visible")


def main(args: argparse.Namespace) -> int:
    """Write NAME_copy.py."""
    source = find(args.name)
    folder = Path(args.folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder for the copy.")
    target = folder / f"{source.stem}_copy.py"
    if target.exists() and not args.force:
        raise UsageError(f"{target} exists; -f overwrites it.")
    text = compose(source) if args.expand else with_data_settings(source)
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(f"copied to {target}")
    if not args.expand:
        print("It sets some names of PART 1 and may set any other; --expand writes the file with all of them.")
    return 0
