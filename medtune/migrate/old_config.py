"""The values of a Python config, read from its syntax tree: nothing of it is run.

A config of XTuner is assignments of plain values, names and `dict(type=callable, ...)`; their values are worked out
here as Python would, as far as that takes no call of anything but `dict`. What would take one stays as `Code`.
"""

from __future__ import annotations

import ast
import io
import operator
import posixpath
import re
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from medtune.data.template_table import SYSTEM_TEMPLATE
from medtune.errors import ConfigError
from medtune.migrate.outcome import Code

OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.Not: operator.not_}
RUNS_TEXT = ("eval", "exec", "compile", "__import__")
RUNS_PROGRAMS = ("builtins.eval", "builtins.exec", "os.system", "os.popen")
HEADINGS = re.compile(
    r"#+\s*(-*|#*|PART \d.*|model|data|scheduler.*|optim.*|save|evaluate.*|sft|dataset|tokenizer)?[\s#]*"
)
BOILERPLATE = re.compile(
    r"#\s*(per_device|grad clip|maximum checkpoints.*|bs per device.*|noqa.*|per device)", re.IGNORECASE
)


@dataclass(frozen=True)
class Name:
    """Something that a config imports or defines, by its dotted path."""

    path: str
    source: str
    """As the config writes it."""

    @property
    def last(self) -> str:
        """Its own name: `load_dataset` of `datasets.load_dataset`; a class for one of its from_... methods."""
        parts = self.path.split(".")
        return parts[-2] if len(parts) > 1 and parts[-1] in ("from_pretrained", "load") else parts[-1]


class _Unknown(Exception):
    """Only running the expression would tell its value."""


class OldConfig:
    """A config that was read: what its names stand for.

    Args:
        text: of the config.
        where: its file, for faults.

    Raises:
        ConfigError: a syntax fault, or a call that runs text as a program.
    """

    def __init__(self, text: str, where: str) -> None:
        self.where = where
        self.values: dict[str, Any] = {}
        self.lines: dict[str, int] = {}
        self.imports: dict[str, Name] = {}
        self.import_lines: dict[str, str] = {}
        self.definitions: dict[str, ast.stmt] = {}
        self.read: set[str] = set()
        self.skipped: list[str] = []
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError) as fault:
            raise ConfigError(f"{where}:{getattr(fault, 'lineno', 1)}: not Python: {fault}.") from None
        self.docstring = ast.get_docstring(tree) or ""
        self.text_lines = text.split("\n")
        _refuse_programs(tree, where)
        self._walk(tree.body)
        self.comments = dict(_comments(text, self.lines))

    # ------------------------------------------------------------ statements

    def _walk(self, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._import(node)
            elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.definitions[node.name] = node
            elif isinstance(node, ast.If) and not isinstance(test := self.value(node.test), (Code, Name)):
                self._walk(node.body if test else node.orelse)
            elif not self._assign(node) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                self.skipped.append(
                    f"line {node.lineno}: `{self.text_lines[node.lineno - 1].strip()[:60]}` is not carried over"
                )

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        module = f"{'.' * node.level}{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            local = alias.asname or (alias.name if module else alias.name.split(".")[0])
            path = module + (alias.name if module or alias.asname else local)
            self.imports[local] = Name(path, local)
            renamed = f" as {alias.asname}" if alias.asname else ""
            head = f"from {module[:-1]} import " if module else "import "
            self.import_lines[local] = f"{head}{alias.name}{renamed}"

    def _assign(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            value = self.value(node.value)
            return all(self._bind(place, value, node.lineno) for place in node.targets)
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            return self._bind(node.target, self.value(node.value), node.lineno)
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            both = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
            return self._bind(node.target, self.value(ast.fix_missing_locations(both)), node.lineno)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            return self._change(node.value)
        return False

    def _bind(self, place: ast.expr, value: Any, line: int) -> bool:
        if isinstance(place, ast.Name):
            self.values[place.id] = value
            self.lines.setdefault(place.id, line)
            return True
        if isinstance(place, (ast.Tuple, ast.List)) and isinstance(value, (tuple, list)):
            if len(place.elts) != len(value):
                return False
            return all(self._bind(one, item, line) for one, item in zip(place.elts, value, strict=True))
        if isinstance(place, ast.Subscript):
            holder, key = self.value(place.value), self.value(place.slice)
            in_list = isinstance(holder, list) and isinstance(key, int) and 0 <= key < len(holder)
            if (isinstance(holder, dict) and isinstance(key, (str, int))) or in_list:
                holder[key] = value
                return True
        return False

    def _change(self, call: ast.Call) -> bool:
        """`a.append(b)`, `a.extend(b)` and `a.update(b)` on a known list or dict."""
        if not isinstance(call.func, ast.Attribute):
            return False
        holder, method = self.value(call.func.value), call.func.attr
        given = [self.value(argument) for argument in call.args]
        if isinstance(holder, list) and method in ("append", "extend") and len(given) == 1:
            if method == "extend" and not isinstance(given[0], (list, tuple)):
                return False
            getattr(holder, method)(given[0])
            return True
        if isinstance(holder, dict) and method == "update" and all(isinstance(one, dict) for one in given):
            for one in [*given, {k.arg: self.value(k.value) for k in call.keywords if k.arg}]:
                holder.update(one)
            return True
        return False

    # ------------------------------------------------------------ values

    def value(self, node: ast.expr) -> Any:
        """What an expression stands for: a plain value, a dict of a call, a `Name`, or `Code`."""
        if isinstance(node, ast.Starred):
            raise ConfigError(f"{self.where}:{node.lineno}: `{ast.unparse(node)}` is no value. Write the value itself.")
        try:
            return self._value(node)
        except (_Unknown, TypeError, ValueError, LookupError, ArithmeticError, RecursionError):
            return Code(ast.unparse(node))

    def _value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self._named(node.id)
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, (ast.List, ast.Tuple)) and not any(isinstance(item, ast.Starred) for item in node.elts):
            items = [self.value(item) for item in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        if isinstance(node, ast.Dict):
            return self._merged(
                [(k if k is None else self.value(k), v) for k, v in zip(node.keys, node.values, strict=True)]
            )
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.IfExp):
            return self._plain(node.test, lambda test: self.value(node.body if test else node.orelse))
        if isinstance(node, ast.UnaryOp):
            return self._plain(node.operand, SIGNS[type(node.op)])
        if isinstance(node, ast.BinOp):
            return self._operate(node.op, self.value(node.left), self.value(node.right))
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self._operate(node.ops[0], self.value(node.left), self.value(node.comparators[0]))
        if isinstance(node, ast.Subscript):
            return self._plain(node.value, lambda holder: holder[self.value(node.slice)])
        if isinstance(node, ast.JoinedStr):
            parts = [self.value(p.value if isinstance(p, ast.FormattedValue) else p) for p in node.values]
            return "".join(map(str, map(_known, parts)))
        raise _Unknown

    def _named(self, name: str) -> Any:
        if name in self.values:
            self.read.add(name)
            return self.values[name]
        if name in self.definitions:
            return Name(name, name)
        return self.imports[name]

    def _attribute(self, node: ast.Attribute) -> Any:
        of = self.value(node.value)
        if not isinstance(of, Name):
            raise _Unknown
        if of.path.endswith("utils.SYSTEM_TEMPLATE"):
            return dict(SYSTEM_TEMPLATE)[node.attr]
        return Name(f"{of.path}.{node.attr}", f"{of.source}.{node.attr}")

    def _plain(self, node: ast.expr, change: Callable[[Any], Any]) -> Any:
        return change(_known(self.value(node)))

    @staticmethod
    def _operate(kind: ast.AST, left: Any, right: Any) -> Any:
        left, right = _known(left), _known(right)
        if isinstance(kind, (ast.Mult, ast.Mod)) and not all(isinstance(side, (int, float)) for side in (left, right)):
            raise _Unknown  # a text times a million, or padded to it
        if isinstance(kind, (ast.In, ast.NotIn)):
            return (left in right) == isinstance(kind, ast.In)
        return OPERATORS[type(kind)](left, right)

    def _merged(self, pairs: list[tuple[Any, ast.expr]]) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        for key, item in pairs:
            found = self.value(item)
            if key is not None:
                merged[key] = found
            elif isinstance(found, dict):
                merged.update(found)
            else:
                raise _Unknown
        return merged

    def _call(self, node: ast.Call) -> Any:
        if isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
            return self._merged([(keyword.arg, keyword.value) for keyword in node.keywords])
        if isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            text = self.value(node.func.value)
            if isinstance(text, str) and not node.args:
                for keyword in node.keywords:
                    text = text.replace(f"{{{keyword.arg}}}", str(self.value(keyword.value)))
                return text
        function, given = self.value(node.func), [self.value(argument) for argument in node.args]
        if isinstance(function, Name) and function.path in ("os.path.join", "osp.join") and given:
            return posixpath.join(*map(_known, given))
        raise _Unknown

    # ------------------------------------------------------------ the user's own code

    def own_code(self, roots: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Text of the imports and definitions that names lead to, and the values of the config that they read."""
        imports: list[str] = []
        bodies: list[tuple[int, str]] = []
        values: dict[str, Any] = {}
        waiting, seen = list(roots), set()
        while waiting:
            name = waiting.pop(0)
            if name in seen:
                continue
            seen.add(name)
            if name in self.definitions:
                node = self.definitions[name]
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                bodies.append((first, "\n".join(self.text_lines[first - 1 : node.end_lineno])))
                waiting += [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
            elif name in self.imports:
                imports.append(self.import_lines[name])
            elif name in self.values:
                values[name] = self.values[name]
        functions = [part for _, text in sorted(bodies) for part in ("", "", text)]
        return [*sorted(imports), *functions, *([""] if functions else [])], values


def names_in(text: str) -> list[str]:
    """Names that an expression reads."""
    return [node.id for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Name)]


def _known(value: Any) -> Any:
    """The value, or _Unknown raised for what only a run would tell."""
    if isinstance(value, (Code, Name)):
        raise _Unknown
    return value


def _refuse_programs(tree: ast.Module, where: str) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (called := ast.unparse(node.func)) in (*RUNS_TEXT, *RUNS_PROGRAMS):
            raise ConfigError(
                f"{where}:{node.lineno}: it calls {called}(), which runs text as a program. Write the value itself; "
                "in a map function, ast.literal_eval or json.loads reads text. Then migrate again."
            )
        if isinstance(node, ast.With) and "read_base" in ast.unparse(node.items[0]):
            raise ConfigError(
                f"{where}:{node.lineno}: it takes settings from another file by read_base(). Put that file's settings "
                "in here, and migrate again."
            )


def _comments(text: str, places: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Name -> the user's comment beside or right above its assignment; headings and XTuner's own are left out."""
    found: dict[int, str] = {}
    alone: set[int] = set()
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT:
                found[token.start[0]] = token.string
                if not token.line[: token.start[1]].strip():
                    alone.add(token.start[0])
    except tokenize.TokenError:
        return
    for name, line in places.items():
        above: list[str] = []
        at = line - 1
        while at in alone and not HEADINGS.fullmatch(found[at].lower()) and not HEADINGS.fullmatch(found[at]):
            above.insert(0, found[at])
            at -= 1
        beside = [found[line]] if line in found and not BOILERPLATE.fullmatch(found[line].strip()) else []
        if above or beside:
            yield name, "\n".join([*above, *beside])
