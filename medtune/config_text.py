"""A config's text: where its settings stand, and how a base, a child and the command line become one text.

Text in, text out: no file is read and nothing is run here. Line numbers count from 1.
"""

from __future__ import annotations

import ast
import io
import math
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from medtune.build import raise_faults
from medtune.errors import ConfigError, nearest

LINE_LENGTH = 120
OVERRIDE = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)=(.*)", re.DOTALL)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
BRACKETED = re.compile(r"\[.*\]|\(.*\)|\{.*\}|dict\(.*\)", re.DOTALL)
QUOTED = re.compile(r"""'.*'|".*\"""", re.DOTALL)

# Overriding the first, which is another file, forgets the second, which said how to read the old one.
FORGETS = {"data_path": "dataset_map_fn"}


class Assignment(NamedTuple):
    """A top-level `name = value`: its lines (inclusive) and its value's syntax tree."""

    first_line: int
    last_line: int
    value: ast.expr


def parse(text: str, where: str) -> ast.Module:
    """Parse a config's text; `where` is its file, for faults.

    Raises:
        ConfigError: a syntax fault, or settings that share a line, so that none could be replaced alone.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as fault:
        raise ConfigError(f"{where}:{fault.lineno}: {fault.msg}: {(fault.text or '').strip()}") from None
    except ValueError as fault:
        raise ConfigError(f"{where}: {fault}. Save the config as a plain text file.") from None
    last = 0
    for node in tree.body:
        several = isinstance(node, ast.Assign) and (
            len(node.targets) > 1 or isinstance(node.targets[0], (ast.Tuple, ast.List))
        )
        if several or node.lineno <= last:
            raise ConfigError(f"{where}:{node.lineno}: wanted one statement a line and one name in it: `name = value`.")
        last = node.end_lineno or node.lineno
    return tree


def target(node: ast.stmt) -> str | None:
    """Name that a statement assigns, or None."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return node.target.id
    return None


def assignments(text: str) -> dict[str, Assignment]:
    """Top-level assignments by name; of several to one name, the first, which is PART 1's."""
    found: dict[str, Assignment] = {}
    for node in ast.parse(text).body:
        name = target(node)
        if name is not None and isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            found.setdefault(name, Assignment(node.lineno, node.end_lineno or node.lineno, node.value))
    return found


def base_name(tree: ast.Module, where: str) -> str | None:
    """The config that a child names as its `_base_`, or None.

    Raises:
        ConfigError: `_base_` is no text.
    """
    for node in tree.body:
        if isinstance(node, ast.Assign) and target(node) == "_base_":
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                return node.value.value
            raise ConfigError(f"{where}:{node.lineno}: _base_ wants one config name or path in quotes.")
    return None


# ---------------------------------------------------------------- a child in its base


def merge_child(base: str, child: str, where: str) -> str:
    """Put a child's settings in place of its base's, and its imports, functions and `_names` above PART 1.

    A setting that the base does not have and that the child itself reads is a new one; it opens PART 1. A statement
    such as `model["type"] = Stage`, on what the base assigns, becomes a last one.

    Args:
        base: flat text of the base.
        child: text of a config with a `_base_`.
        where: the child's file, for faults.

    Raises:
        ConfigError: lists every setting that the base does not have, and every statement that has no place.
    """
    tree, lines, known = parse(child, where), child.split("\n"), assignments(base)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    edits: dict[str, list[str]] = {}
    head: list[str] = []
    above: list[str] = []
    new: list[str] = []
    last: list[str] = []
    faults: list[str] = []
    for node in tree.body:
        own, name = lines[_first_line(node) - 1 : node.end_lineno], target(node)
        if name == "_base_":
            continue
        if name in known:
            edits.setdefault(name, []).extend(own)
        elif changed_part(node) in known:
            last += own
        elif name is not None and name in read and not name.startswith("_"):
            new += own
        elif name is not None and not name.startswith("_"):
            hint = nearest(name, known) or " A helper name of your own starts with _."
            faults.append(f"{where}:{node.lineno}: the base has no setting {name!r}.{hint}")
        elif _is_docstring(node, tree):
            base, head = _without_docstring(base), [*own, *head]
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__":
            head += own
        elif name is not None or isinstance(node, (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)):
            above += ["", *own, ""] if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else own
        else:
            faults.append(
                f"{where}:{node.lineno}: a config with a _base_ holds settings, imports and functions only. "
                "For anything else start from `medtune copy-cfg --expand`."
            )
    raise_faults(faults)
    # From bottom to top, so that line numbers stay true.
    text = insert_after_imports(_open_settings(replace(base, edits), new), above)
    return "\n".join([*head, text.rstrip("\n"), "", *last, ""]) if last else "\n".join([*head, text])


def changed_part(node: ast.stmt) -> str | None:
    """`model` of the statement `model["llm"]["type"] = ...`; None for any other."""
    if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Subscript):
        return None
    root: ast.expr = node.targets[0]
    while isinstance(root, ast.Subscript):
        root = root.value
    return root.id if isinstance(root, ast.Name) else None


def _open_settings(text: str, new: Sequence[str]) -> str:
    """Insert lines below the heading of PART 1, or where settings begin."""
    lines = text.split("\n")
    heading = next((i for i, line in enumerate(lines) if line.startswith("#") and " PART 1" in line), None)
    if heading is None or not new:
        return insert_after_imports(text, new)
    at = heading + 2 if lines[heading + 1].startswith("##") else heading + 1
    return "\n".join([*lines[:at], *new, "", *lines[at:]])


def _first_line(node: ast.stmt) -> int:
    return min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])


def _is_docstring(node: ast.stmt, tree: ast.Module) -> bool:
    if node is not tree.body[0] or not isinstance(node, ast.Expr):
        return False
    return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _without_docstring(text: str) -> str:
    tree, lines = ast.parse(text), text.split("\n")
    if tree.body and _is_docstring(tree.body[0], tree):
        del lines[tree.body[0].lineno - 1 : tree.body[0].end_lineno]
    return "\n".join(lines)


def join_child(base: str, child: str) -> str:
    """One child of the base's own base: the child's docstring and settings, then those of the base it leaves alone.

    Args:
        base, child: texts of configs that hold settings only.
    """
    own, inherited = assignments(child), assignments(base)
    first = own["_base_"].first_line - 1
    settings = [_lines(child, place) for name, place in own.items() if name != "_base_"]
    settings += [_lines(base, place) for name, place in inherited.items() if name not in own]
    return "\n".join([*child.split("\n")[:first], _lines(base, inherited["_base_"]), "", *settings, ""])


def _lines(text: str, place: Assignment) -> str:
    return "\n".join(text.split("\n")[place.first_line - 1 : place.last_line])


def insert_after_imports(text: str, new: Sequence[str]) -> str:
    """Insert lines below the docstring and imports that a config begins with."""
    return _insert(text, new, (ast.Import, ast.ImportFrom))


def insert_before_imports(text: str, new: Sequence[str]) -> str:
    """Insert lines below the docstring, above all imports but those from `__future__`."""
    return _insert(text, new, ())


def _insert(text: str, new: Sequence[str], skipped: tuple[type[ast.stmt], ...]) -> str:
    if not new:
        return text
    tree, at = ast.parse(text), 0
    for node in tree.body:
        future = isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if not (future or isinstance(node, skipped) or _is_docstring(node, tree)):
            break
        at = node.end_lineno or node.lineno
    lines = text.split("\n")
    return "\n".join([*lines[:at], *new, "", *lines[at:]])


def replace(text: str, edits: Mapping[str, Sequence[str]]) -> str:
    """Replace the lines of the named top-level assignments; the comment behind the old value stays."""
    if not edits:
        return text
    lines, places, comments = text.split("\n"), assignments(text), _comments(text)
    for name in sorted(edits, key=lambda n: -places[n].first_line):
        place, new = places[name], list(edits[name])
        comment = comments.get(place.last_line)
        if comment and not _comments("\n".join(new)):
            fits = len(new) == 1 and len(new[0]) + len(comment) + 2 <= LINE_LENGTH
            new = [f"{new[0]}  {comment}"] if fits else [comment, *new]
        lines[place.first_line - 1 : place.last_line] = new
    return "\n".join(lines)


def _comments(text: str) -> dict[int, str]:
    """Line -> comment on it."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


# ---------------------------------------------------------------- override


def split_words(words: Iterable[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Split command-line words into plain words and `(name, value text)` overrides, wherever they stand."""
    plain, overrides = [], []
    for word in words:
        match = OVERRIDE.fullmatch(word)
        if match:
            overrides.append((match[1], match[2]))
        else:
            plain.append(word)
    return plain, overrides


def override(text: str, overrides: Sequence[tuple[str, str]]) -> str:
    """Replace the assignments of bare names by the command line's values (the last of several wins).

    Raises:
        ConfigError: lists every name that the config does not assign (with the nearest), and every value of a type
            that the setting cannot take.
    """
    known = assignments(text)
    edits: dict[str, list[str]] = {}
    faults = []
    for name, value_text in overrides:
        if "." in name:
            continue
        if name not in known:
            faults.append(f"{name}={_short(value_text)}: the config has no setting {name!r}.{nearest(name, known)}")
            continue
        try:
            edits[name] = [f"{name} = {parse_value(name, value_text, _constant(known[name].value))!r}"]
        except ConfigError as fault:
            faults.append(str(fault))
    raise_faults(faults)
    for name, forgotten in FORGETS.items():
        if name in edits and forgotten in known and isinstance(_constant(known[forgotten].value), str):
            edits.setdefault(forgotten, [f"{forgotten} = None"])
    return replace(text, edits)


def _constant(node: ast.expr) -> Any:
    """Value of a syntax tree that is a plain Python value, else None."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def parse_value(name: str, text: str, current: Any = None) -> Any:
    """Read a command-line value.

    Where the setting holds a text, the new text arrives as it is, whatever is in it; only None means None. Elsewhere
    numbers, True, False, and what stands in quotes or brackets (`dict(key=value)` too) are read as Python, and the
    rest is text.

    Args:
        name: of the setting, for faults.
        text: what stands behind `name=`.
        current: the value so far, which tells the wanted type; None if unknown.

    Raises:
        ConfigError: a value of another type than wanted, or brackets that hold no Python value.
    """
    if text == "None":
        return None
    if isinstance(current, str):
        return text
    if isinstance(current, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ConfigError(f"{name}={_short(text)}: wanted True or False.")
    value = _literal(name, text)
    if isinstance(current, (int, float)):
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise ConfigError(f"{name}={_short(text)}: wanted a number, such as {current}.")
    elif isinstance(current, (list, tuple)) and not isinstance(value, (list, tuple)):
        return _items(text)
    return value


def _items(text: str) -> list[Any]:
    """Items of a list written without brackets: numbers or quoted texts after commas; else the text is one item."""
    try:
        return list(_value(ast.parse(f"[{text}]", mode="eval").body))
    except (ValueError, SyntaxError):
        return [text]


def _literal(name: str, text: str) -> Any:
    """Value of Python text, or the text itself if it is not meant as Python."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    bracketed = BRACKETED.fullmatch(text)
    if not (bracketed or QUOTED.fullmatch(text) or NUMBER.fullmatch(text)):
        return text
    try:
        return _value(ast.parse(text, mode="eval").body)
    except (ValueError, SyntaxError):
        if bracketed:
            example = "['a', 'b']" if text[0] in "[(" else "dict(a='b')"
            raise ConfigError(
                f"{name}={_short(text)}: no Python value in these brackets. Quote the texts in them, and the whole for "
                f'the shell: "{name}={example}".'
            ) from None
        return text


def _value(node: ast.expr) -> Any:
    """A literal, in which `dict(key=value)` may stand for `{"key": value}`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {_keyword(k): _value(k.value) for k in node.keywords}
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {ast.literal_eval(k): _value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return ast.literal_eval(node)


def _keyword(node: ast.keyword) -> str:
    if node.arg is None:
        raise ValueError("** in a value")
    return node.arg


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
