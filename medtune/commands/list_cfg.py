"""List the built-in configs, or what names of configs may be made of.

Names tell model, method, data set and epochs: internlm_chat_7b_qlora_oasst1_e3. A name of a listed model, full, lora or
qlora, a listed data set and any number of epochs is a config too, whether it is listed or not.
"""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from operator import itemgetter
from typing import Any

from medtune.config import builtin_configs, data_configs
from medtune.config_names import split_name
from medtune.families import MODELS

EXAMPLES = """  medtune list-cfg
  medtune list-cfg -p medical_e1
  medtune list-cfg --models -p qwen3
  medtune list-cfg --json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """-p, --models, --data, --json."""
    parser.add_argument("-p", "--pattern", default="", help="only names that contain this text")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--models", action="store_true", help="list the models that a name may begin with")
    which.add_argument("--data", action="store_true", help="list the data sets that a name may hold")
    parser.add_argument("--json", action="store_true", help="print a list of objects, for machines")


def main(args: argparse.Namespace) -> int:
    """Print one name a line, below its family."""
    found = _models() if args.models else _data() if args.data else _configs()
    found = [entry for entry in found if args.pattern.lower() in entry["name"].lower()]
    if args.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
    elif not found:
        kind = "model" if args.models else "data set" if args.data else "config"
        print(f"no {kind} name contains {args.pattern!r}")
    else:
        for family, entries in groupby(found, key=lambda entry: entry.get("family", "")):
            print("\n".join([*([f"{family}:"] if family else []), *(f"  {entry['name']}" for entry in entries)]))
    return 0


def _configs() -> list[dict[str, Any]]:
    """Configs by family; what their names tell stands beside each."""
    files = sorted(builtin_configs().values(), key=lambda file: (file.parent.name, file.stem))
    return [
        {"name": file.stem, "family": file.parent.name, **(parts._asdict() if (parts := split_name(file.stem)) else {})}
        for file in files
    ]


def _models() -> list[dict[str, Any]]:
    entries = [{"name": name, "family": m.family, "hub_id": m.hub_id, "note": m.note} for name, m in MODELS.items()]
    return sorted(entries, key=itemgetter("family"))  # within a family, as the table has them


def _data() -> list[dict[str, Any]]:
    return [{"name": name} for name in data_configs()]
