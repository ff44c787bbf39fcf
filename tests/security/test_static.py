"""Nothing in medtune unpickles, evaluates, extracts archives or runs remote code; two places stand apart, by name.

Read from the syntax trees, so that a comment or a text does not count and an alias does not hide.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = {
    path.relative_to(ROOT).as_posix(): path
    for folder in ("medtune", "configs", "tools")
    for path in sorted((ROOT / folder).rglob("*.py"))
}
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "code",
    "runpy",
}
CALLS = {"eval", "exec", "compile", "__import__", "execfile", "torch.load", "torch.hub.load", "torch.jit.load"}
CALLS |= {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load", "np.load"}
OF_YAML = {"safe_load", "YAMLError"}  # all that a source file may use of it
METHODS = {"extractall", "unpack_archive", "read_pickle", "to_pickle"}
FLAGS = {"shell", "trust_remote_code", "allow_pickle"}
# A config is the user's own program, and this is the one place that runs it; old checkpoints have their own reader.
ALLOWED = {("medtune/config.py", "exec"), ("medtune/config.py", "compile"), ("medtune/importer.py", "torch.load")}
ALLOWED |= {("medtune/migrate/trainer.py", "trust_remote_code")}  # a key of its table of what is told of old settings


def dangers(path: Path, where: str) -> Iterator[str]:
    """What in a source file must not be there, with its line."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    names = dict(_aliases(tree))
    for node in ast.walk(tree):
        line = f"{where}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            yield from (f"{line}: imports {a.name}" for a in node.names if a.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in MODULES:
            yield f"{line}: imports from {node.module}"
        elif isinstance(node, ast.ImportFrom) and node.module == "yaml":
            yield from (f"{line}: imports yaml.{a.name}" for a in node.names if a.name not in OF_YAML)
        elif isinstance(node, ast.Attribute) and names.get(ast.unparse(node.value)) == "yaml":
            yield from () if node.attr in OF_YAML else (f"{line}: uses yaml.{node.attr}",)
        elif isinstance(node, ast.Call):
            yield from (f"{line}: {text}" for text in _bad_call(node, where, names))
        elif isinstance(node, ast.arguments):
            yield from (f"{where}: {text}" for text in _bad_defaults(node))
        set_here = ((flag, value) for flag, value in _settings(node) if flag in FLAGS and (where, flag) not in ALLOWED)
        yield from (f"{line}: sets {flag}" for flag, value in set_here if not _is_off(flag, value))


def _aliases(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Local name -> what it stands for: `from os import system as run`, `import torch as t`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)


def _bad_call(node: ast.Call, where: str, names: dict[str, str]) -> Iterator[str]:
    first, *rest = ast.unparse(node.func).split(".")
    called = ".".join([names.get(first, first), *rest])
    called = {"numpy.load": "np.load"}.get(called, called).removeprefix("builtins.")
    if called in CALLS and (where, called) not in ALLOWED:
        yield f"calls {called}"
    if rest and rest[-1] in METHODS:
        yield f"calls {called}"


def _settings(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that a node gives a value: keywords of a call, keys of a dict, assignments."""
    if isinstance(node, ast.Call):
        yield from ((k.arg, k.value) for k in node.keywords if k.arg)
    elif isinstance(node, ast.Dict):
        keys = zip(node.keys, node.values, strict=True)
        yield from ((str(key.value), value) for key, value in keys if isinstance(key, ast.Constant))
    elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from ((ast.unparse(target).split(".")[-1], node.value) for target in targets)


def _is_off(flag: str, value: ast.expr) -> bool:
    """False, or the caller's parameter of the same name handed on (whose default `_bad_defaults` looks at)."""
    return (isinstance(value, ast.Constant) and value.value is False) or (
        isinstance(value, ast.Name) and value.id == flag
    )


def _bad_defaults(arguments: ast.arguments) -> Iterator[str]:
    """Parameters named like a forbidden flag that are not off by default."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    for argument, default in pairs:
        if argument.arg in FLAGS and default is not None and not _is_off(argument.arg, default):
            yield f"the parameter {argument.arg} is not False by default"


@pytest.mark.parametrize("where", SOURCES)
def test_no_source_file_unpickles_evaluates_or_trusts_remote_code(where):
    assert not list(dangers(SOURCES[where], where))


def test_the_one_torch_load_reads_weights_only():
    tree = ast.parse(SOURCES["medtune/importer.py"].read_text(encoding="utf-8"))
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "torch.load"]
    assert len(calls) == 1
    values = {k.arg: k.value for k in calls[0].keywords}
    assert isinstance(values["weights_only"], ast.Constant) and values["weights_only"].value is True


def test_from_pretrained_is_always_told_not_to_trust_remote_code():
    """Left out, transformers asks on the terminal whether to run a model's code."""
    for where, path in SOURCES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("Auto"):
                told = {k.arg for k in node.keywords}
                assert "trust_remote_code" in told or None in told, f"{where}:{node.lineno}"


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "import yaml\nyaml.load('x', Loader=yaml.SafeLoader)",
        "import yaml as y\ny.unsafe_load('x')",
        "from yaml import full_load",
        "import yaml\nread = yaml.load",
        "eval('1')",
        "exec(text)",
        "torch.load('x', weights_only=True)",
        "import torch as t\nt.load('x')",
        "from torch import load\nload('x')",
        "from os import system as run\nrun('ls')",
        "import builtins\nbuiltins.eval('1')",
        "subprocess.run('ls', shell=True)",
        "subprocess.run('ls', shell=flag)",
        "tarfile.open('x').extractall('y')",
        "zipfile.ZipFile('x').extractall()",
        "shutil.unpack_archive('x')",
        "import numpy\nnumpy.load('x')",
        "f(allow_pickle=1)",
        "dict(trust_remote_code=True)",
        "options = {'trust_remote_code': flag}",
        "def load(path, trust_remote_code=True): ...",
        "trust_remote_code = True",
        "self.trust_remote_code = True",
    ],
)
def test_the_static_test_sees_each_danger(line, tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(line, encoding="utf-8")
    assert list(dangers(path, "medtune/bad.py"))


@pytest.mark.parametrize(
    "line",
    [
        "# eval('1')",
        "'torch.load(x)'",
        "model.eval()",
        "f(trust_remote_code=False)",
        "re.compile('x')",
        "import yaml\nyaml.safe_load('x')",
    ],
)
def test_the_static_test_passes_what_is_none(line, tmp_path):
    path = tmp_path / "good.py"
    path.write_text(line, encoding="utf-8")
    assert not list(dangers(path, "medtune/good.py"))
