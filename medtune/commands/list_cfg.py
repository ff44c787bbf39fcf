"""List the built-in configs.

Names tell model, method, data set and epochs: internlm_chat_7b_qlora_oasst1_e3.
"""

from __future__ import annotations

import argparse

from medtune.config import builtin_configs

EXAMPLES = "  medtune list-cfg\n  medtune list-cfg -p qlora"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """-p."""
    parser.add_argument("-p", "--pattern", default="", help="only names that contain this text")


def main(args: argparse.Namespace) -> int:
    """Print one name a line."""
    names = [name for name in builtin_configs() if args.pattern.lower() in name.lower()]
    print("\n".join(names) if names else f"no config name contains {args.pattern!r}")
    return 0
