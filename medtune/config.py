"""Configs: find, compose, override, run.

A config is a Python file in five parts whose top-level assignments are its settings. Everything that changes a
setting changes an assignment in the text (`config_text`), before the text runs once:

- a child config (`_base_ = "sft"`) replaces assignments of its base by its own;
- `name=value` on the command line replaces one more;
- `name.key=value` is added as a last statement.

So whatever is derived from a setting follows it, there is one place where a value can stand, and the text that ran
is the text that is saved and runs again. See docs/design/config.md.
"""

from __future__ import annotations

import ast
import importlib.util
import types
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.build import accepted_names, raise_faults
from medtune.config_names import config_text, known_parts, split_name
from medtune.config_text import (
    assignments,
    base_name,
    changed_part,
    insert_before_imports,
    join_child,
    merge_child,
    override,
    parse,
    parse_value,
    split_words,
    target,
)
from medtune.errors import ConfigError, MedtuneError, nearest
from medtune.families import MODELS

__all__ = ["Config", "builtin_configs", "compose", "config_root", "find", "load", "override", "run", "split_words"]

# Names that the engine reads from a config; all others must be used inside it.
RUNTIME_NAMES = (
    "tokenizer",
    "model",
    "train_dataset",
    "val_dataset",
    "train_dataloader",
    "val_dataloader",
    "optim_wrapper",
    "param_scheduler",
    "train_cfg",
    "default_hooks",
    "custom_hooks",
    "visualizer",
    "log_level",
    "randomness",
    "work_dir",
)

IMPORTS = (ast.Import, ast.ImportFrom)


@dataclass(frozen=True)
class Config:
    """A config that has run: its text, and the values its top-level names ended up with."""

    name: str
    text: str
    values: dict[str, Any]


# ---------------------------------------------------------------- find


def config_root() -> Path:
    """Folder of the built-in configs (`configs/` of the source tree, installed as `medtune.configs`)."""
    spec = importlib.util.find_spec("medtune.configs")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the built-in configs are not installed; reinstall medtune with `pip install -e .`")
    return Path(next(iter(spec.submodule_search_locations)))


def builtin_configs() -> dict[str, Path]:
    """Name -> file of every built-in config, sorted by name."""
    files = [f for f in config_root().glob("*/*.py") if not f.stem.startswith("_") and f.parent.name != "_base_"]
    return {f.stem: f for f in sorted(files, key=lambda f: f.stem)}


def data_configs() -> dict[str, Path]:
    """Name -> file of every built-in data set: a base that sets what one is trained with."""
    return {f.stem: f for f in sorted((config_root() / "_base_" / "data").glob("*.py"))}


def base_configs() -> dict[str, Path]:
    """Name -> file of every built-in base, which a `_base_` names: "sft", "data/medical"."""
    files = sorted((config_root() / "_base_").glob("*.py"))
    stages = {f.stem: f for f in files if f.stem not in ("__init__", "parts")}
    return {**stages, **{f"data/{name}": f for name, f in data_configs().items()}}


def names_config(word: str) -> bool:
    """True for the name of a built-in config, and for one that follows the grammar of their names."""
    return word in builtin_configs() or split_name(word) is not None


def find(name: str, beside: Path | None = None) -> Path:
    """Return the file of a config named by path or by built-in name.

    A name that follows the grammar (`config_names`) need not be on disk: its file is then the one that would hold it,
    and `read_config` knows what would stand there.

    Args:
        name: a path that ends in .py, or a name.
        beside: folder where a relative path begins; None is the current one.

    Raises:
        ConfigError: no such file and no such built-in config, or a name of an unknown model or data set; names the
            nearest ones.
    """
    path = (beside or Path()) / Path(name).expanduser()
    if path.suffix == ".py" and path.is_file():
        return path
    known = {**builtin_configs(), **base_configs()}
    if name in known:
        return known[name]
    if path.is_file():
        raise ConfigError(f"{name}: a config is a Python file, named *.py.")
    files = [f.name for f in path.parent.glob("*.py")] if path.parent.is_dir() else []
    if path.suffix == ".py" or len(Path(name).parts) > 1:
        raise ConfigError(f"no config file {name!r}.{nearest(path.name, [*files, *known])}")
    if (parts := known_parts(name, data_configs())) is not None:
        return config_root() / MODELS[parts.model].family / f"{name}.py"
    hint = nearest(name, [*known, *files])
    raise ConfigError(f"no config named {name!r}.{hint} `medtune list-cfg` lists them all.")


# ---------------------------------------------------------------- compose


def compose(path: Path, seen: tuple[Path, ...] = ()) -> str:
    """Return the flat text of the config file at `path`: its base's text with its own assignments put in.

    Raises:
        ConfigError: a syntax fault, an unknown base, or an assignment whose name the base does not have.
    """
    if path.resolve() in seen:
        raise ConfigError(f"{path}: its _base_ leads back to itself.")
    text = read_config(path)
    tree = parse(text, str(path))
    base = base_name(tree, str(path))
    if base is not None:
        text = merge_child(compose(find(base, path.parent), (*seen, path.resolve())), text, str(path))
    return _with_local_imports(text, tree, path.resolve().parent)


def read_config(path: Path) -> str:
    """Text of a config file, or of one that a name means. Raises ConfigError where it is not UTF-8."""
    parts = split_name(path.stem) if path.parent.parent == config_root() else None
    if parts is not None and not path.is_file():
        return config_text(parts, compose(data_configs()[parts.data]))
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ConfigError(f"{path}: not UTF-8 at byte {fault.start}. Save the config file as UTF-8.") from None


def _with_local_imports(text: str, own: ast.Module, folder: Path) -> str:
    """Let a config import modules that lie beside it, also from the copy of the text that is saved elsewhere."""
    for node in ast.walk(own):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        for top in {name.split(".")[0] for name in names} - {"medtune", ""}:
            if (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
                line = f"__import__('sys').path.insert(0, {str(folder)!r})  # this config imports {top} from there"
                return insert_before_imports(text, [line])
    return text


def with_data_settings(path: Path) -> str:
    """The text of a config, and in it the settings of the data sets that it is based on: short, and all to be seen."""
    text = read_config(path)
    while (base := base_name(parse(text, str(path)), str(path))) is not None and base.startswith("data/"):
        text = join_child(read_config(find(base)), text)
    return text


# ---------------------------------------------------------------- run


def load(name: str, overrides: Sequence[tuple[str, str]] = (), wanted: Collection[str] = ()) -> Config:
    """Find, compose, override and run a config.

    Args:
        name: a file or a built-in name.
        overrides: (name, value text) pairs.
        wanted: names to run it for; what they do not depend on, such as the import of torch, is left out. None given:
            all of it.

    Raises:
        ConfigError: anything wrong with the file or an override, in one line each.
    """
    path = find(name)
    text = override(compose(path), overrides)
    raise_faults(list(_unused(text, path)))
    values = run(text, path, wanted)
    for key, value_text in overrides:
        if "." in key:
            text = f"{text.rstrip()}\n{_dotted_statement(values, key, value_text)}\n"
            values = run(text, path, wanted)
    return Config(path.stem, text, values)


def run(text: str, path: Path, wanted: Collection[str] = ()) -> dict[str, Any]:
    """Execute the flat text of the config at `path`; return its top-level values. A config is code, like a Makefile.

    Args:
        text, path: of the config.
        wanted: as for `load`.

    Raises:
        ConfigError: what went wrong, at which line of which file.
    """
    from medtune.compat import quiet_bitsandbytes, require_cv2

    tree = ast.parse(text)
    if wanted:
        tree.body = _needed_for(wanted, tree.body)
    else:
        require_cv2()
        quiet_bitsandbytes()
    namespace: dict[str, Any] = {"__name__": f"medtune_config_{path.stem}"}
    try:
        exec(compile(tree, f"<config {path.stem}>", "exec", dont_inherit=True), namespace)
    except MedtuneError:
        raise
    except Exception as fault:
        line = _failing_line(text, fault)
        said = " ".join(f"{type(fault).__name__}: {fault}".split())
        said += ". Import it, or put it in quotes if it is a name" if isinstance(fault, NameError) else ""
        raise ConfigError(f"{_place(path, line)}: `{line}`: {said}" if line else f"{path}: {said}") from fault
    return {k: v for k, v in namespace.items() if not k.startswith("_") and _is_setting(v)}


def _needed_for(wanted: Collection[str], body: Sequence[ast.stmt]) -> list[ast.stmt]:
    """The statements that names depend on.

    Left out are imports, functions, classes and plain assignments of other names. All else stays, and so does an
    assignment that calls a method of a value, which may change it.
    """
    imported = {a.asname or a.name.split(".")[0] for n in body if isinstance(n, IMPORTS) for a in n.names}
    needed, kept = set(wanted), []
    for node in reversed(body):
        if isinstance(node, IMPORTS):
            bound = {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound = {node.name}
        elif (name := target(node)) is not None and _roots_of_methods(node) <= imported:
            bound = {name}
        elif (part := changed_part(node)) is not None:
            bound = {part}
        else:
            bound = needed
        if bound & needed:
            kept.append(node)
            needed |= _names_read(node)
    return kept[::-1]


def _roots_of_methods(node: ast.stmt) -> set[str]:
    """First names of the dotted calls in a statement: `a` of `a.b.c()`."""
    calls = (
        call.func for call in ast.walk(node) if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
    )
    return {name.id for func in calls for name in ast.walk(func) if isinstance(name, ast.Name)}


def _is_setting(value: Any) -> bool:
    return not isinstance(value, (types.ModuleType, types.FunctionType, type))


def _failing_line(text: str, fault: Exception) -> str:
    trace, line = fault.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<config "):
            line = trace.tb_lineno
        trace = trace.tb_next
    return text.split("\n")[line - 1].strip() if line else ""


def _place(path: Path, line: str) -> str:
    """FILE:LINE of a line of the flat text, in the config at `path` or its bases; FILE if it came from an override."""
    file: Path | None = path
    while file is not None:
        text = read_config(file)
        for number, own in enumerate(text.split("\n"), 1):
            rest = line.removeprefix(own.strip()).strip()  # a base's comment may have been put behind it
            if own.strip() and rest != line and (not rest or rest.startswith("#")):
                return f"{file}:{number}"
        base = base_name(parse(text, str(file)), str(file))
        file = find(base, file.parent) if base is not None else None
    return str(path)


def _dotted_statement(values: dict[str, Any], key: str, value_text: str) -> str:
    """`a.b.0.c` and a value as the statement `a['b'][0]['c'] = value`; every step but a new argument must exist."""
    first, *steps = key.split(".")
    if first not in values:
        raise ConfigError(f"{key}: the config has no {first!r}.{nearest(first, values)}")
    node, statement = values[first], first
    for i, step in enumerate(steps):
        last = i == len(steps) - 1
        where = ".".join([first, *steps[:i]])
        if isinstance(node, dict):
            allowed = [*node, *(accepted_names(node) if last else ())]
            if step not in allowed:
                raise ConfigError(f"{key}: {where} has no {step!r}.{nearest(step, allowed)}")
            statement += f"[{step!r}]"
            node = node.get(step)
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            statement += f"[{int(step)}]"
            node = node[int(step)]
        else:
            size = f" of {len(node)}" if isinstance(node, list) else ""
            raise ConfigError(f"{key}: {where} is a {type(node).__name__}{size}, which has no {step!r}.")
    return f"{statement} = {parse_value(key, value_text, node)!r}"


# ---------------------------------------------------------------- unused settings


def _unused(text: str, path: Path) -> Iterator[str]:
    """Faults for settings that nothing below them reads: misspelt, or set again after their last use."""
    tree, lines = ast.parse(text), text.split("\n")
    reads = [_names_read(node) for node in tree.body]
    late = {
        name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) for name in _names_read(node)
    }
    ever = {name for names in reads for name in names}
    for i, node in enumerate(tree.body):
        name = node.target.id if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name) else target(node)
        if name is None or name.startswith("_") or name in RUNTIME_NAMES or name in late.union(*reads[i + 1 :]):
            continue
        where = _place(path, lines[node.lineno - 1].strip())
        if name in ever or any(name == target(earlier) for earlier in tree.body[:i]):
            yield f"{where}: {name!r} is set here below its last use, which changes nothing. Set it in PART 1."
        elif not _is_default(name, node):
            yield f"{where}: sets {name!r}, which nothing uses.{nearest(name, sorted({*ever, *RUNTIME_NAMES}))}"


def _names_read(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _is_default(name: str, node: ast.stmt) -> bool:
    """True for a base's own setting, left as it is: a config that replaces a part has no use for all of PART 1."""
    value = getattr(node, "value", None)
    for file in base_configs().values():
        setting = assignments(read_config(file)).get(name)
        if setting is not None and value is not None and ast.dump(setting.value) == ast.dump(value):
            return True
    return False
