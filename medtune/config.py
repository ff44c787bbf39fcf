"""Configs as text: find, compose, override, run.

A config is a Python file in five parts whose top-level assignments are its settings. Everything that changes a
setting changes an assignment in the text, before the text runs once:

- a child config (`_base_ = "sft"`) replaces assignments of its base by its own;
- `name=value` on the command line replaces one more;
- `name.key=value` is added as a last statement.

So whatever is derived from a setting follows it, there is one place where a value can stand, and the text that ran
is the text that is saved and runs again. See docs/design/config.md.
"""

from __future__ import annotations

import ast
import importlib.util
import keyword
import re
import sys
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medtune.errors import ConfigError, UsageError, nearest

LINE_LENGTH = 120
OVERRIDE = re.compile(r"^([A-Za-z_]\w*(?:\.\w+)*)=(.*)$", re.DOTALL)


@dataclass(frozen=True)
class Config:
    """A config that has run: its text, and the values its top-level names ended up with."""

    name: str
    text: str
    values: dict[str, Any]


class Assignment(NamedTuple):
    """A top-level `name = value` of a config: its lines (1-based, inclusive) and its value's syntax tree."""

    first_line: int
    last_line: int
    value: ast.expr


# ---------------------------------------------------------------- find


def config_root() -> Path:
    """Folder of the built-in configs (`configs/` of the source tree, installed as `medtune.configs`)."""
    spec = importlib.util.find_spec("medtune.configs")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the built-in configs are not installed; reinstall medtune with `pip install -e .`")
    return Path(next(iter(spec.submodule_search_locations)))


def builtin_configs() -> dict[str, Path]:
    """Name -> file of every built-in config, sorted by name."""
    files = config_root().rglob("*.py")
    return {f.stem: f for f in sorted(files, key=lambda f: f.stem) if not f.stem.startswith("_") and not _is_base(f)}


def _is_base(file: Path) -> bool:
    return file.parent.name == "_base_"


def find(name: str, beside: Path | None = None) -> Path:
    """Return the file of a config named by path or by built-in name; `beside` is tried for relative paths.

    Raises:
        ConfigError: no such file and no such built-in config; names the nearest ones.
    """
    for candidate in filter(None, (Path(name), beside and beside / name)):
        if candidate.suffix == ".py" and candidate.is_file():
            return candidate
    if name.endswith(".py") or "/" in name:
        raise ConfigError(f"no config file {name!r}.{nearest(Path(name).stem, builtin_configs())}")
    known = builtin_configs()
    if name in known:
        return known[name]
    base = config_root() / "_base_" / f"{name}.py"
    if base.is_file():
        return base
    raise ConfigError(f"no config named {name!r}.{nearest(name, known)} `medtune list-cfg` lists them all.")


# ---------------------------------------------------------------- compose


def compose(path: Path, seen: tuple[Path, ...] = ()) -> str:
    """Return the flat text of the config file at `path`: its base's text with its own assignments put in.

    Raises:
        ConfigError: a syntax fault, an unknown base, or an assignment whose name the base does not have.
    """
    if path.resolve() in seen:
        raise ConfigError(f"{path}: its _base_ leads back to itself.")
    text = _read(path)
    tree = _parse(text, str(path))
    base_name = _base_name(tree, path)
    if base_name is None:
        return text
    base = compose(find(base_name, beside=path.parent), (*seen, path.resolve()))
    return _put_into(base, base_name, text, tree, path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise ConfigError(f"{path}: not UTF-8 at byte {fault.start}. Save the config file as UTF-8.") from None


def _parse(text: str, where: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as fault:
        raise ConfigError(f"{where}:{fault.lineno}: {fault.msg}: {(fault.text or '').strip()}") from None


def _base_name(tree: ast.Module, path: Path) -> str | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and _target(node) == "_base_":
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                return node.value.value
            raise ConfigError(f"{path}:{node.lineno}: _base_ wants one config name or path in quotes.")
    return None


def _target(node: ast.stmt) -> str | None:
    """Name that a top-level statement assigns, or None."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return node.target.id
    return None


def assignments(text: str) -> dict[str, Assignment]:
    """Top-level assignments of a config's text by name; of several to one name, the first, which is PART 1's."""
    found: dict[str, Assignment] = {}
    for node in ast.parse(text).body:
        name = _target(node)
        if name is not None and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            found.setdefault(name, Assignment(node.lineno, node.end_lineno or node.lineno, node.value))
    return found


def _put_into(base: str, base_name: str, child: str, tree: ast.Module, path: Path) -> str:
    """Put a child's assignments in place of its base's, and its imports and functions above PART 1."""
    child_lines = child.splitlines()
    known = assignments(base)
    edits: dict[str, list[str]] = {}
    extra: list[str] = []
    for node in tree.body:
        lines = child_lines[_first_line(node) - 1 : node.end_lineno]
        name = _target(node)
        if name == "_base_" or _is_docstring(node, tree):
            continue
        if name in known:
            edits[name] = lines
        elif name is not None and not name.startswith("_"):
            raise ConfigError(f"{path}:{node.lineno}: its base {base_name!r} has no {name!r}.{nearest(name, known)}")
        elif name is not None or isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
            extra += [*lines, ""] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else lines
        else:
            raise ConfigError(
                f"{path}:{node.lineno}: a config with a _base_ holds assignments, imports and functions only. "
                "For anything else start from `medtune copy-cfg --expand`."
            )
    text = replace(base, edits)
    docstring = ast.get_docstring(tree, clean=False)
    if docstring is not None:
        text = _with_docstring(text, docstring)
    return _above_part_1(text, extra) if extra else text


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    return min([node.lineno, *(d.lineno for d in decorators)])


def _is_docstring(node: ast.stmt, tree: ast.Module) -> bool:
    return node is tree.body[0] and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def replace(text: str, edits: dict[str, list[str]]) -> str:
    """Replace the lines of the named top-level assignments of `text`."""
    lines = text.splitlines()
    places = assignments(text)
    for name in sorted(edits, key=lambda n: -places[n].first_line):
        place, new = places[name], list(edits[name])
        old_comment = _comment(lines[place.last_line - 1])
        if old_comment and len(new) == 1 and not _comment(new[0]):
            fits = len(new[0]) + len(old_comment) < LINE_LENGTH
            new = [f"{new[0]}  {old_comment}"] if fits else [old_comment, new[0]]
        lines[place.first_line - 1 : place.last_line] = new
    return "\n".join(lines) + "\n"


def _comment(line: str) -> str:
    """Trailing comment of a line of code that holds no other '#', or ""."""
    code, mark, comment = line.partition("  # ")
    return f"# {comment}" if mark and not re.search(r"""["']""", comment) else ""


def _with_docstring(text: str, docstring: str) -> str:
    first = ast.parse(text).body[0]
    lines = text.splitlines()
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        del lines[first.lineno - 1 : first.end_lineno]
    return "\n".join([f'"""{docstring}"""', *lines]) + "\n"


def _above_part_1(text: str, extra: list[str]) -> str:
    """Insert lines after the import block, just above the first other statement or its comment banner."""
    lines = text.splitlines()
    imports = [n for n in ast.parse(text).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    after = imports[-1].end_lineno or 0 if imports else 0
    return "\n".join([*lines[:after], *extra, *lines[after:]]) + "\n"


# ---------------------------------------------------------------- override


def split_words(words: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Split command-line words into plain words and `(name, value text)` overrides, wherever they stand."""
    plain, overrides = [], []
    for word in words:
        match = OVERRIDE.match(word)
        if match:
            overrides.append((match[1], match[2]))
        else:
            plain.append(word)
    return plain, overrides


def override(text: str, overrides: Sequence[tuple[str, str]]) -> str:
    """Replace the assignments of bare names by the command line's values (the last of several wins).

    Raises:
        ConfigError: the config does not assign such a name (with the nearest), or the value has another type.
    """
    known = assignments(text)
    edits = {}
    for name, value_text in overrides:
        if "." in name:
            continue
        if name not in known:
            raise ConfigError(f"the config has no setting {name!r}.{nearest(name, known)}")
        edits[name] = [f"{name} = {parse_value(name, value_text, known[name].value)!r}"]
    return replace(text, edits) if edits else text


def parse_value(name: str, text: str, current: ast.expr | None = None) -> Any:
    """Read a command-line value as a Python literal, else as the text it is; `current` tells the wanted type.

    Text stays untouched: commas, spaces, '=' and Chinese need no quoting. Only text in brackets or quotes, numbers,
    True, False and None are read as Python.
    """
    wanted = current.value if isinstance(current, ast.Constant) else None
    if text in ("None", "none", "null"):
        return None
    if isinstance(wanted, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ConfigError(f"{name}={text}: wanted True or False.")
    value = _literal(text)
    if isinstance(wanted, str):
        return value if isinstance(value, str) else text
    if isinstance(wanted, (int, float)) and (not isinstance(value, (int, float)) or isinstance(value, bool)):
        raise ConfigError(f"{name}={text}: wanted a number, such as {wanted}.")
    if isinstance(current, (ast.List, ast.Tuple)) and isinstance(value, str):
        return [part.strip() for part in text.split(",")] if "," in text and text[0] not in "[(" else [text]
    return value


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    bracketed = text[:1] in "[({'\"" and text[-1:] in "])}'\""
    if not bracketed and not re.fullmatch(r"[-+]?(\d[\d_]*)?\.?\d*([eE][-+]?\d+)?", text):
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


# ---------------------------------------------------------------- run


def load(name: str, overrides: Sequence[tuple[str, str]] = ()) -> Config:
    """Find, compose, override and run a config.

    Raises:
        ConfigError: anything wrong with the file or an override, in one line.
    """
    path = find(name)
    text = override(compose(path), overrides)
    text = _with_local_imports(text, path)
    values = run(text, path.stem)
    for key, value_text in overrides:
        if "." in key:
            statement = _dotted_statement(values, key, value_text)
            text += statement + "\n"
            values = run(text, path.stem)
    _check_unused(text, values)
    return Config(path.stem, text, values)


def run(text: str, name: str) -> dict[str, Any]:
    """Execute a config's text and return its public top-level values. A config is code, like a Makefile."""
    from medtune.compat import quiet_bitsandbytes, require_cv2

    require_cv2()
    quiet_bitsandbytes()
    namespace: dict[str, Any] = {"__name__": f"medtune_config_{name}", "__file__": name}
    try:
        exec(compile(text, f"<config {name}>", "exec"), namespace)
    except UsageError:
        raise
    except Exception as fault:
        raise ConfigError(f"config {name}: {_failing_line(text, fault)}{type(fault).__name__}: {fault}") from fault
    return {k: v for k, v in namespace.items() if not k.startswith("_") and _is_setting(v)}


def _is_setting(value: Any) -> bool:
    return not isinstance(value, (types.ModuleType, types.FunctionType, type))


def _failing_line(text: str, fault: Exception) -> str:
    trace, line = fault.__traceback__, 0
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.startswith("<config "):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"`{text.splitlines()[line - 1].strip()}`: " if line else ""


def _with_local_imports(text: str, path: Path) -> str:
    """Let a config import modules that lie beside it, also from the copy that is saved elsewhere."""
    folder = path.resolve().parent
    for node in ast.walk(ast.parse(text)):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            top = module.split(".")[0]
            if (folder / f"{top}.py").is_file() or (folder / top / "__init__.py").is_file():
                if str(folder) not in sys.path:
                    sys.path.insert(0, str(folder))
                line = f"__import__('sys').path.insert(0, {str(folder)!r})  # this config imports a module from there"
                return text if line in text else _above_imports(text, line)
    return text


def _above_imports(text: str, line: str) -> str:
    first = ast.parse(text).body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    at = (first.end_lineno or 0) if has_docstring else 0
    lines = text.splitlines()
    return "\n".join([*lines[:at], line, *lines[at:]]) + "\n"


def _dotted_statement(values: dict[str, Any], key: str, value_text: str) -> str:
    """`a.b.0.c` and a value as the statement `a['b'][0]['c'] = value`; every step but a new argument must exist."""
    from medtune.build import accepted_names

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
        elif isinstance(node, (list, tuple)) and step.isdigit() and int(step) < len(node):
            statement += f"[{step}]"
            node = node[int(step)]
        else:
            raise ConfigError(f"{key}: {where} is a {type(node).__name__}, which has no {step!r}.")
    current = ast.Constant(node) if isinstance(node, (bool, int, float, str)) else None
    return f"{statement} = {parse_value(key, value_text, current)!r}"


def _check_unused(text: str, values: dict[str, Any]) -> None:
    """Refuse a top-level name that nothing reads: most often a setting whose name was misspelt."""
    tree = ast.parse(text)
    read = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    assigned = assignments(text)
    for name in assigned:
        if name in values and name not in read and name not in RUNTIME_NAMES and not keyword.iskeyword(name):
            known = [*(n for n in assigned if n != name), *RUNTIME_NAMES]
            raise ConfigError(f"the config sets {name!r}, which nothing uses.{nearest(name, known)}")


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
