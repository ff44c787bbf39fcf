"""Whose config a text is, told from its content, and the reader for it."""

from __future__ import annotations

import re

from medtune.errors import ConfigError
from medtune.migrate import llama_factory, medicalgpt, xtuner
from medtune.migrate.flags import Flags, from_shell, from_yaml
from medtune.migrate.outcome import Outcome

ORIGINS = ("xtuner", "llama-factory", "medicalgpt")
PYTHON = re.compile(r"^(from|import) |^\w+ = dict\(", re.MULTILINE)
COMMAND = re.compile(r"\.py\b.*--\w|^\s*(llamafactory-cli|torchrun|accelerate) ", re.MULTILINE | re.DOTALL)
YAML = re.compile(r"^(model_name_or_path|stage|finetuning_type|output_dir)\s*:", re.MULTILINE)


def read(text: str, where: str, origin: str | None = None) -> Outcome:
    """Read a config of another framework.

    Args:
        text: of the config, or of the script.
        where: its file, for faults.
        origin: one of `ORIGINS`; None tells it from the text.

    Raises:
        ConfigError: it is none of these, or something in it has no place here.
    """
    if origin == "xtuner" or (origin is None and PYTHON.search(text) and not YAML.search(text)):
        try:
            return xtuner.migrate(text, where)
        except (RecursionError, MemoryError):
            raise ConfigError(f"{where}: brackets or sums nested too deeply to be a config.") from None
    if YAML.search(text) or text.lstrip().startswith("{"):
        flags = from_yaml(text, where)
    elif COMMAND.search(text):
        flags = from_shell(text, where)
    else:
        raise ConfigError(
            f"{where}: wanted an XTuner config (Python), a LLaMA-Factory YAML file, or a shell script with a training "
            "command of LLaMA-Factory or MedicalGPT; --from names which."
        )
    return _of_flags(flags, origin)


def _of_flags(flags: Flags, origin: str | None) -> Outcome:
    if origin is None:
        origin = "medicalgpt" if medicalgpt.stage_of(flags.script) else "llama-factory"
    given = set(flags.left)
    out = (medicalgpt if origin == "medicalgpt" else llama_factory).migrate(flags)
    out.mapped = [line for line in out.mapped if (told := re.findall(r"--(\w+)", line)) == [] or given & set(told)]
    if flags.not_given:
        defaults = ", ".join(f"{flag} {value}" for flag, value in flags.not_given.items())
        out.mapped.append(f"not given, so the defaults of {out.origin}: {defaults}")
    gpus = flags.launcher.get("nproc_per_node", flags.launcher.get("num_processes", flags.launcher.get("num_gpus")))
    if gpus not in (None, 1):
        out.miss(f"{gpus} processes: `NPROC_PER_NODE={gpus} medtune train CONFIG`")
    if flags.launcher.get("nnodes") not in (None, 1):
        out.miss("several nodes: NNODES, NODE_RANK, ADDR and PORT before `medtune train CONFIG`")
    return out
