"""`medtune COMMAND ...`: find the command's module, parse, run, and turn faults into one line and an exit code.

Standard library only: a command imports torch and the rest inside its `main`, so that `--help`, `list-cfg` and
`copy-cfg` answer at once.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import logging
import os
import re
import sys
from types import ModuleType
from typing import NoReturn

from medtune import __version__
from medtune.errors import MedtuneError, PeerFault, printable
from medtune.launch import tell_launcher

# Command words -> module with a docstring (its first line is the help), EXAMPLES, add_arguments() and main().
COMMANDS = {
    "list-cfg": "medtune.commands.list_cfg",
    "copy-cfg": "medtune.commands.copy_cfg",
    "migrate": "medtune.commands.migrate",
    "train": "medtune.commands.train",
    "test": "medtune.commands.test",
    "convert pth_to_hf": "medtune.commands.convert_pth_to_hf",
    "convert merge": "medtune.commands.convert_merge",
    "chat": "medtune.commands.chat",
    "data convert": "medtune.commands.data_convert",
    "data split": "medtune.commands.data_split",
    "data prepare": "medtune.commands.data_prepare",
    "data inspect": "medtune.commands.data_inspect",
    "data check": "medtune.commands.data_check",
    "data stats": "medtune.commands.data_stats",
    "data dedupe": "medtune.commands.data_dedupe",
    "data overlap": "medtune.commands.data_overlap",
    "data mix": "medtune.commands.data_mix",
    "data phi-scan": "medtune.commands.data_phi_scan",
    "data redact": "medtune.commands.data_redact",
    "data show": "medtune.commands.data_show",
    "data catalog": "medtune.commands.data_catalog",
    "log-dataset": "medtune.commands.log_dataset",
    "check-custom-dataset": "medtune.commands.check_custom_dataset",
    "list-dataset-format": "medtune.commands.list_dataset_format",
    "doctor": "medtune.commands.doctor",
    "version": "medtune.commands.version",
}

HELP_WORDS = ("help", "-h", "--help")
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An argument parser whose faults are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, without the usage, and exit with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see `{self.prog} --help`)\n")


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns the exit code; see `medtune.errors` for their meaning."""
    words = sys.argv[1:] if argv is None else argv
    debug = "--debug" in words
    logging.raiseExceptions = debug  # a log record that cannot be written (full disk) is not worth a traceback
    try:
        return _run(words)
    except MedtuneError as fault:
        if debug:
            raise
        return _fail(str(fault), fault.exit_code, echo=isinstance(fault, PeerFault))
    except KeyboardInterrupt:
        if debug:
            raise
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader (`| head`) has gone; nothing more can be said on stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as fault:
        if debug:
            raise
        return _fail(*_explain(fault))


def _run(words: list[str]) -> int:
    if not words or words[0] in HELP_WORDS:
        print(_overview(), end="")
        return 0
    if words[0] in ("-v", "--version"):
        words = ["version", *words[1:]]
    name, rest = _split_command(words)
    module = importlib.import_module(COMMANDS[name])
    args = _parser(name, module).parse_intermixed_args(rest)
    args.typed = words
    return int(module.main(args) or 0)


def _split_command(words: list[str]) -> tuple[str, list[str]]:
    """Split the longest known command off the front of `words`."""
    for size in (2, 1):
        name = " ".join(words[:size])
        if name in COMMANDS and len(words) >= size:
            return name, words[size:]
    group = [name for name in COMMANDS if name.split()[0] == words[0]]
    if group and (len(words) == 1 or words[1] in HELP_WORDS):
        print("".join(f"  medtune {name:<22} {_summary(name)}\n" for name in group), end="")
        sys.exit(0 if len(words) > 1 else 2)
    typed = " ".join(words[:2]) if group else words[0]
    close = difflib.get_close_matches(typed, COMMANDS, n=2)
    hint = f" Did you mean {' or '.join(repr(c) for c in close)}?" if close else ""
    sys.exit(_fail(f"unknown command {typed!r}.{hint} `medtune help` lists all commands.", 2))


def _parser(name: str, module: ModuleType) -> Parser:
    parser = Parser(
        prog=f"medtune {name}",
        description=module.__doc__,
        epilog=f"examples:\n{module.EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show the traceback of a fault")
    return parser


def _summary(name: str) -> str:
    """First docstring line of a command's module."""
    return (importlib.import_module(COMMANDS[name]).__doc__ or "").strip().splitlines()[0]


def _overview() -> str:
    lines = [f"medtune {__version__}: fine-tune medical language models from plain Python configs.", "", "commands:"]
    lines += [f"  {name:<22} {_summary(name)}" for name in COMMANDS]
    lines += [
        "",
        "the road from a config to a conversation:",
        "  medtune list-cfg -p qlora",
        "  medtune copy-cfg med_llama_tiny_lora_medqa_e3 .",
        "  medtune train ./med_llama_tiny_lora_medqa_e3_copy.py lr=1e-3 max_epochs=3",
        "  medtune convert pth_to_hf CONFIG work_dirs/NAME/epoch_3.pth ./hf",
        "  medtune convert merge BASE ./hf ./merged --max-shard-size 2GB",
        "  medtune chat ./merged",
        "",
        "`medtune COMMAND --help` says more, with examples.",
    ]
    return "\n".join(lines) + "\n"


def _fail(message: str, exit_code: int, echo: bool = False) -> int:
    sys.stdout.flush()
    message = printable(message)
    if not tell_launcher(message, exit_code, echo):
        print(f"medtune: {message}", file=sys.stderr)
    return exit_code


def _os_error(fault: Exception) -> int | None:
    """errno of an OSError, or of one that a Rust library (safetensors) tells in its text only."""
    told = re.search(r"\(os error (\d+)\)", str(fault))
    return getattr(fault, "errno", None) or (int(told[1]) if told else None)


def _explain(fault: Exception) -> tuple[str, int]:
    """One line and an exit code for a fault that was not raised on purpose."""
    text = " ".join(str(fault).split()) or type(fault).__name__
    number = _os_error(fault)
    place = getattr(fault, "filename", None) or text
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {place}. Free some space and run the same command again.", 3
    if number in (errno.EIO, errno.EROFS):
        return f"the disk does not take or give data: {text}. Check it, or use another.", 3
    if isinstance(fault, PermissionError):
        return f"no permission: {place}. Change its mode, or name another.", 3
    if isinstance(fault, (FileExistsError, NotADirectoryError, IsADirectoryError)):
        return f"{place}: a file stands where a folder is wanted, or the other way round. Name another.", 2
    if isinstance(fault, MemoryError) or "can't allocate memory" in text:
        return "out of memory. Lower batch_size or max_length, or use a smaller model or a qlora config.", 3
    if type(fault).__name__ == "OutOfMemoryError":
        return (
            "the GPU is out of memory. Lower batch_size or max_length, set use_activation_checkpointing=True, "
            "or use a qlora config.",
            3,
        )
    return f"internal fault, {type(fault).__name__}: {text[:300]} (run again with --debug for the traceback)", 1
