"""Import arrows point down, start-up modules stay light, and nothing runs code that a user did not write.

The order of the layers is the list in docs/design/architecture.md, read from there.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "medtune"
SOURCES = {path.relative_to(ROOT).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES.values()
}
LIGHT = [name for name in MODULES if name in ("medtune.cli", "medtune.config") or name.startswith("medtune.commands.")]
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "yaml.load", "os.system", "os.popen"}
FORBIDDEN_FLAGS = {"shell", "trust_remote_code", "allow_pickle"}
# A config is the user's own program; this is the one place that runs it.
ALLOWED_CALLS = {("medtune/config.py", "exec"), ("medtune/config.py", "compile")}


def layers() -> list[str]:
    """Names of medtune's modules and packages from top to bottom, as the design page lists them."""
    page = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"\b(\w+)(?:\.py|/)", page.split("```")[1])


def layer(module: str) -> str:
    """The layer of a module: "medtune.data.encode" -> "data"; of the package itself: ""."""
    return [*module.split("."), ""][1]


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(nodes: list[ast.stmt] | Iterator[ast.AST], package: str) -> Iterator[str]:
    """Modules named by the import statements among `nodes`; `from package import submodule` names the submodule."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def at_import_time(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run when a module is imported, without those under `if TYPE_CHECKING`."""
    for node in body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield from at_import_time(getattr(node, field, []))
        for handler in getattr(node, "handlers", []):
            yield from at_import_time(handler.body)


def package_of(name: str) -> str:
    return name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]


def test_every_module_stands_in_the_list_of_the_design_page():
    named = set(layers())
    assert {layer(name) for name in MODULES} - named <= {"", "__main__"}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    order = {found: place for place, found in enumerate(layers())}
    here = layer(name)
    if here in ("", "__main__"):
        return
    for target in imports(ast.walk(tree(MODULES[name])), package_of(name)):
        if target.split(".")[0] == "medtune" and (there := layer(target)) not in ("", here):
            assert order[there] > order[here], f"{name} imports {target}, which stands above it"


def test_nobody_imports_the_commands():
    for name, path in MODULES.items():
        if not name.startswith("medtune.commands"):
            targets = imports(ast.walk(tree(path)), package_of(name))
            assert not [t for t in targets if t.startswith("medtune.commands")], name


def test_data_never_imports_models():
    for name in (n for n in MODULES if n.startswith("medtune.data")):
        targets = imports(ast.walk(tree(MODULES[name])), package_of(name))
        assert not [t for t in targets if t.startswith("medtune.models")], name


@pytest.mark.parametrize("name", LIGHT)
def test_start_up_modules_import_only_the_standard_library(name):
    """Followed through medtune's own modules: what `--help` loads holds no third-party package."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for target in imports(at_import_time(tree(MODULES[module]).body), package_of(module)):
            if target in MODULES:
                waiting.append(target)
            else:
                assert target.split(".")[0] in sys.stdlib_module_names, f"{module} imports {target}"


def dangers(path: Path, where: str) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {n.split(".")[0] for n in imports(iter([node]), "")}
            yield from (f"{where}:{node.lineno}: imports {n}" for n in names & FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in FORBIDDEN_CALLS and (where, called) not in ALLOWED_CALLS:
                yield f"{where}:{node.lineno}: calls {called}"
            for keyword in node.keywords:
                if keyword.arg in FORBIDDEN_FLAGS and not _is_off(keyword.arg, keyword.value):
                    yield f"{where}:{node.lineno}: {keyword.arg}={ast.unparse(keyword.value)}"
        if isinstance(node, ast.arguments):
            yield from (f"{where}: {text}" for text in _bad_defaults(node))
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            names = {ast.unparse(t) for t in (node.targets if isinstance(node, ast.Assign) else [node.target])}
            yield from (
                f"{where}:{node.lineno}: sets {n}" for n in names & FORBIDDEN_FLAGS if not _is_off(n, node.value)
            )
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in FORBIDDEN_FLAGS and not _is_off(key.value, value):
                    yield f"{where}:{node.lineno}: {key.value!r}: {ast.unparse(value)}"


def _is_off(flag: str, value: ast.expr) -> bool:
    """False, or the caller's parameter of the same name handed on (whose default `dangers` looks at)."""
    return (isinstance(value, ast.Constant) and value.value is False) or (
        isinstance(value, ast.Name) and value.id == flag
    )


def _bad_defaults(arguments: ast.arguments) -> Iterator[str]:
    """Parameters named like a forbidden flag that are not off by default."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    for argument, default in pairs:
        if argument.arg in FORBIDDEN_FLAGS and default is not None and not _is_off(argument.arg, default):
            yield f"the parameter {argument.arg} is not False by default"


@pytest.mark.parametrize("where", SOURCES)
def test_no_source_file_unpickles_evaluates_or_trusts_remote_code(where):
    assert not list(dangers(SOURCES[where], where))


def test_no_config_unpickles_evaluates_or_trusts_remote_code():
    for path in sorted((ROOT / "configs").rglob("*.py")):
        assert not list(dangers(path, path.relative_to(ROOT).as_posix()))


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "eval('1')",
        "torch.load('x')",
        "yaml.load(text)",
        "subprocess.run('ls', shell=True)",
        "dict(trust_remote_code=True)",
        "options = {'trust_remote_code': flag}",
        "def load(path, trust_remote_code=True): ...",
        "trust_remote_code = True",
        "exec(text)",
    ],
)
def test_the_danger_test_sees_each_danger(line, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(line, encoding="utf-8")
    assert list(dangers(path, "medtune/bad.py"))


def test_the_layer_test_sees_relative_and_nested_imports():
    code = "def f():\n    from ..models import some_name\n    from . import records\n    import medtune.engine.loops\n"
    found = set(imports(ast.walk(ast.parse(code)), "medtune.data"))
    assert found == {"medtune.models", "medtune.data.records", "medtune.engine.loops"}
