"""The wheel carries what a first run needs, and the set-up scripts refuse what they cannot use."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

# Never carried to the copy: history, environments, results.
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".venv*", "build", "dist", "*.egg-info", "work_dirs", "demo_out", "__pycache__"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, unpacked; built from a copy so that the tree stays clean."""
    folder = tmp_path_factory.mktemp("packaging")
    shutil.copytree(ROOT, folder / "tree", ignore=LEFT_OUT)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "tree"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = folder.glob("medtune-*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def run_from(wheel: Path, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_every_module_config_and_asset(wheel):
    for source, target in (("medtune", "medtune"), ("configs", "medtune/configs")):
        for path in (ROOT / source).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".md" and path.name[0] != ".":
                assert (wheel / target / path.relative_to(ROOT / source)).is_file(), path


@pytest.mark.slow
def test_the_wheel_holds_the_licence_and_the_cards_of_the_assets(wheel):
    assert list(wheel.glob("medtune-*.dist-info/**/LICENSE"))
    assert (wheel / "medtune/assets/README.md").is_file()
    assert (wheel / "medtune/assets/med-llama-tiny/README.md").is_file()
    assert (wheel / "medtune/assets/medication_qa.xlsx").is_file()


@pytest.mark.slow
def test_the_unpacked_wheel_lists_its_configs_from_anywhere(wheel, tmp_path):
    where = run_from(
        wheel, "-c", "import medtune, medtune.configs as c; print(medtune.__file__, *c.__path__)", cwd=tmp_path
    )
    assert where.split() == [str(wheel / "medtune" / "__init__.py"), str(wheel / "medtune" / "configs")]
    listed = run_from(wheel, "-m", "medtune", "list-cfg", cwd=tmp_path).split()
    on_disk = {
        p.stem for p in (ROOT / "configs").rglob("*.py") if not p.stem.startswith("_") and "_base_" not in p.parts
    }
    assert on_disk and on_disk <= set(listed)


def fake_python(tmp_path: Path, version: str) -> Path:
    """An executable that answers as an interpreter of another version would."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}" && exit 0\nexit 1\n', encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("script", ["demo.sh", "test.sh"])
@pytest.mark.parametrize("python", ["3.13.0", "absent"])
def test_set_up_refuses_another_python_in_one_line(script, python, tmp_path):
    name = str(tmp_path / "nowhere") if python == "absent" else str(fake_python(tmp_path, python))
    environment = {**os.environ, "PYTHON": name, "MEDTUNE_VENV": str(tmp_path / "venv")}
    command = ["bash", str(ROOT / "tools" / script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1 and "3.10, 3.11 or 3.12" in done.stderr and "PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_constraints_fit_pyproject_and_name_no_index():
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {r.name: r for r in (Requirement(x) for x in lines if x and not x.startswith("#"))}
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    wanted = [Requirement(x.split('"')[1]) for x in text.splitlines() if x.startswith('    "') and ">=" in x]
    assert len(wanted) >= 10
    for requirement in wanted:
        (pin,) = pins[requirement.name].specifier
        assert pin.operator == "==" and requirement.specifier.contains(pin.version), requirement.name
    assert next(iter(pins)) == "torch"
    assert not [x for x in lines if "://" in x or x.startswith("-")]
