"""The flags of a training command, from a shell script or a YAML file, and how a table turns them into settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from medtune.errors import ConfigError, nearest
from medtune.migrate.outcome import Outcome

LAUNCHERS = ("python", "python3", "torchrun", "accelerate", "deepspeed", "llamafactory-cli", "lmf", "srun", "nohup")
PROGRAM = re.compile(r".*\.py|train|export|chat")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+)|\d|\(|`)")
TAKE_SEVERAL = ("dataset", "lora_target", "report_to")
ASSIGNED = re.compile(r"(?:export\s+)?(\w+)=(\S*)")


@dataclass
class Flags:
    """What a command was given."""

    where: str
    left: dict[str, Any]
    """Flag, without its dashes -> value; what is not understood is left."""
    script: str = ""
    """The Python file, or the subcommand."""
    launcher: dict[str, Any] = field(default_factory=dict)
    """The launcher's own flags."""
    not_given: dict[str, Any] = field(default_factory=dict)
    """Flags that were asked for and not given -> the default that was taken."""

    def take(self, *names: str, default: Any = None) -> Any:
        """The value of the first of these flags that is given; all of them are then no longer left."""
        found = [self.left.pop(name) for name in names if name in self.left]
        if not found and default not in (None, False):
            self.not_given[names[0]] = default
        if found and isinstance(found[0], (list, dict)) and names[0] not in TAKE_SEVERAL:
            raise ConfigError(f"{self.where}: {names[0]} wants one value, got {len(found[0])}.")
        return found[0] if found else default

    def number(self, *names: str, default: float | None = None) -> Any:
        """The same, of flags that want a number. Raises ConfigError for a text."""
        value = self.take(*names, default=default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ConfigError(f"{self.where}: {names[0]} wants a number, got {value!r}.")
        return value


def from_yaml(text: str, where: str) -> Flags:
    """Read a YAML file of flags. Raises ConfigError where it is none."""
    import yaml

    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as fault:  # ValueError: a number of thousands of digits
        mark = getattr(fault, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(
            f"{where}{line}: not YAML ({getattr(fault, 'problem', None) or type(fault).__name__})."
        ) from None
    if not isinstance(loaded, dict) or not all(isinstance(key, str) for key in loaded):
        raise ConfigError(f"{where}: wanted a YAML mapping of names to values, got a {type(loaded).__name__}.")
    if _stands_twice(loaded, set()):
        raise ConfigError(f"{where}: it has YAML aliases (*name), which may unfold without end. Write the values out.")
    return Flags(where, {key: plain(value) for key, value in loaded.items()})


def _stands_twice(value: Any, seen: set[int]) -> bool:
    """Whether a list or mapping is in another place, or in itself, too."""
    if not isinstance(value, (list, dict)):
        return False
    if id(value) in seen:
        return True
    seen.add(id(value))
    return any(_stands_twice(child, seen) for child in (value.values() if isinstance(value, dict) else value))


def from_shell(text: str, where: str) -> Flags:
    """Read the one training command of a shell script; nothing is run, so what only a shell could tell is refused.

    Raises:
        ConfigError: no command or several, a value that a shell would compute, or quotes that do not close.
    """
    variables: dict[str, str] = {}
    found: list[Flags] = []
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError as fault:
            raise ConfigError(f"{where}: {fault} in `{line.strip()[:60]}`.") from None
        while words and (match := ASSIGNED.fullmatch(words[0])):
            variables[match[1]] = _filled(match[2], variables, where) if "$" in match[2] else match[2]
            words.pop(0)
        if words and words[0] == "export":
            variables |= dict(ASSIGNED.findall(" ".join(words[1:])))
        elif words and (words[0].rsplit("/", 1)[-1] in LAUNCHERS or words[0].endswith(".py")):
            found.append(_command([_filled(word, variables, where) for word in words], where))
    commands = [flags for flags in found if flags.left]
    if len(commands) != 1:
        raise ConfigError(
            f"{where}: wanted one training command with flags, such as `python src/train_bash.py --stage sft ...`, "
            f"got {len(commands)}."
        )
    return commands[0]


def _filled(word: str, variables: Mapping[str, str], where: str) -> str:
    """A word with the variables that the script sets."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None or name not in variables:
            raise ConfigError(
                f"{where}: {match[0]} is known to the shell alone. Write its value there, and migrate again."
            )
        return variables[name]

    return VARIABLE.sub(value, word)


def _command(words: list[str], where: str) -> Flags:
    """Take a command apart: the launcher's flags, the program, and the program's flags."""
    at = next((i for i, word in enumerate(words) if i and PROGRAM.fullmatch(word)), None)
    if words[0].endswith(".py"):
        at = 0
    if at is None:
        return Flags(where, {})
    given, rest = words[at + 1 :], {}
    if given and given[0].endswith((".yaml", ".yml", ".json")):
        raise ConfigError(f"{where}: its flags are in {given[0]}; migrate that file.")
    rest = _pairs(given, where)
    return Flags(
        where,
        rest,
        words[at],
        _pairs([word for word in words[1:at] if word.startswith("-") or "=" not in word], where, strict=False),
    )


def _pairs(words: list[str], where: str, strict: bool = True) -> dict[str, Any]:
    """Flags and their values; a flag without one is True, with several a list."""
    pairs: dict[str, Any] = {}
    name = ""
    for word in words:
        if word in ("|", ">", ">>", "2>&1", "&", "&&", ";"):
            break
        if re.fullmatch(r"--?[A-Za-z]\S*", word):
            name, equals, value = word.lstrip("-").partition("=")
            name = name.replace("-", "_")
            pairs[name] = plain(value) if equals else True
        elif name:
            old = pairs[name]
            pairs[name] = plain(word) if old is True else [*(old if isinstance(old, list) else [old]), plain(word)]
        elif strict:
            raise ConfigError(f"{where}: `{word}` stands before every flag; wanted --name value.")
    return pairs


def plain(value: Any) -> Any:
    """A flag's text as a number, True, False or None where it is one.

    >>> plain("5e-5"), plain("True"), plain("none"), plain("q_proj,v_proj")
    (5e-05, True, None, 'q_proj,v_proj')
    """
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value.lower() in ("none", "null"):
        return None
    if re.fullmatch(r"[-+]?\d{1,300}", value):  # Python reads no more than 4300 digits
        return int(value)
    if re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", value):
        return float(value)
    return value


def translate(
    flags: Flags, out: Outcome, names: Mapping[str, str], told: Mapping[str, str], silent: Collection[str]
) -> None:
    """Set what a table maps, tell what has a counterpart elsewhere, and list what nobody knows.

    Args:
        flags: those of them that are in the tables are taken.
        out: gets the settings and the lines.
        names: flag -> setting of the same meaning.
        told: flag -> what there is in its place; said only where the flag asks for something.
        silent: flags that mean nothing here.
    """
    for flag, value in list(flags.left.items()):
        if flag in names:
            out.put(names[flag], value, f"--{flag} -> {names[flag]}" if flag != names[flag] else "")
        elif flag in told and value not in (None, False, "none"):
            out.miss(f"--{flag}: {told[flag]}")
        elif flag not in told and flag not in silent:
            near = nearest(flag, [*names, *told])
            out.miss(f"--{flag}: unknown, left out.{near}")
        del flags.left[flag]
