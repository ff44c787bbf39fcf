"""Turn a config of XTuner, LLaMA-Factory or MedicalGPT into one of medtune.

OLD is an XTuner config (0.1.9 to 0.1.23), a LLaMA-Factory YAML file, or a shell script that holds one training command
of LLaMA-Factory (also its old src/train_bash.py) or MedicalGPT. It is read as text and never run. NEW sets what differs
from the base of its stage; what changed its name or meaning, and what has no equivalent, is printed line by line.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medtune.migrate.outcome import Outcome

EXAMPLES = """\
  medtune migrate internlm_chat_7b_qlora_oasst1_e3_copy.py mine.py
  medtune migrate llama3_lora_sft.yaml mine.py --diff
  medtune migrate run_sft.sh mine.py --from medicalgpt -f"""

LARGEST = 1 << 20  # bytes; a config has a few thousand


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """OLD, NEW, --from, --diff, -f."""
    parser.add_argument("old", metavar="OLD", type=Path, help="the old config, YAML file or script")
    parser.add_argument("new", metavar="NEW", type=Path, help="the new config, a .py file")
    parser.add_argument(
        "--from",
        dest="origin",
        choices=("xtuner", "llama-factory", "medicalgpt"),
        help="whose OLD is (default: told from its content)",
    )
    parser.add_argument("--diff", action="store_true", help="print a unified diff of OLD and NEW too")
    parser.add_argument("-f", "--force", action="store_true", help="replace NEW")


def main(args: argparse.Namespace) -> int:
    """Write NEW, all of it or nothing."""
    import os

    from medtune.data.row_file import new_file, require_new
    from medtune.migrate.outcome import config_text
    from medtune.migrate.reading import read

    require_new(args.new, args.force, (".py",))
    old = _text(args.old)
    if args.new.exists() and args.new.samefile(args.old):
        from medtune.errors import UsageError

        raise UsageError(f"{args.new}: OLD and NEW are one file; name another for NEW.")
    outcome = read(old, str(args.old), args.origin)
    new = config_text(outcome, str(args.new), args.old.name)
    with new_file(args.new) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(new)
        file.flush()
        os.fsync(file.fileno())
    _report(outcome, args)
    if args.diff:
        from medtune.errors import printable

        print(printable(_diff(old, new, args)), end="")
    return 0


def _text(file: Path) -> str:
    """The old config's text."""
    from medtune.errors import UsageError

    if not file.is_file():
        raise UsageError(f"{file}: no such file; name the config to migrate.")
    if file.stat().st_size > LARGEST:
        raise UsageError(f"{file}: {file.stat().st_size} bytes; wanted a config, which has a few thousand.")
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise UsageError(f"{file}: not UTF-8 at byte {fault.start}. Save it as UTF-8.") from None


def _diff(old: str, new: str, args: argparse.Namespace) -> str:
    import difflib

    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), str(args.old), str(args.new), lineterm="")
    return "".join(f"{line}\n" for line in lines)


def _report(outcome: Outcome, args: argparse.Namespace) -> None:
    """What was mapped, and what has no equivalent."""
    from medtune.errors import printable

    print(f"{args.new}: from {args.old} of {outcome.origin}, stage {outcome.stage}")
    for heading, lines in (("changed", outcome.mapped), ("no equivalent, or elsewhere", outcome.missing)):
        if lines:
            print(f"{heading}:")
            print(printable("".join(f"  {line}\n" for line in dict.fromkeys(lines))), end="")
    print(f"next: medtune train {args.new} --check")
