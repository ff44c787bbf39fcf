"""Import arrows point down, and start-up modules stay light.

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


def test_the_layer_test_sees_relative_and_nested_imports():
    code = "def f():\n    from ..models import some_name\n    from . import records\n    import medtune.engine.loops\n"
    found = set(imports(ast.walk(ast.parse(code)), "medtune.data"))
    assert found == {"medtune.models", "medtune.data.records", "medtune.engine.loops"}
