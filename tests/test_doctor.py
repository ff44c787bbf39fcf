"""`medtune doctor` and the workarounds it reports on."""

from __future__ import annotations

import builtins
import json
import os
import re
from argparse import Namespace
from collections import namedtuple
from types import SimpleNamespace

import pytest
from conftest import ROOT

from medtune import cli, compat
from medtune.commands import doctor
from medtune.errors import EnvironmentFault

GOOD = {name: wanted.minimum for name, wanted in doctor.PACKAGES.items()}


@pytest.fixture
def versions(monkeypatch) -> dict[str, str]:
    """Installed versions, as doctor sees them; a test edits the dict."""
    found = dict(GOOD)
    monkeypatch.setattr(doctor, "installed", found.get)
    return found


@pytest.fixture(autouse=True)
def no_mkl_variables(monkeypatch):
    for name in (*doctor.MKL_VARIABLES, *doctor.OFFLINE_VARIABLES):
        monkeypatch.delenv(name, raising=False)


def report(capsys) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code and topic -> (level, text)."""
    code = doctor.main(Namespace(json=True))
    checks = json.loads(capsys.readouterr().out)["checks"]
    return code, {c["topic"]: (c["level"], c["text"]) for c in checks}


def hide_cv2(monkeypatch, message: str) -> None:
    monkeypatch.delitem(__import__("sys").modules, "cv2", raising=False)
    real = compat.importlib.import_module

    def fake(name: str, package: str | None = None):
        if name == "cv2":
            raise ImportError(message)
        return real(name, package)

    monkeypatch.setattr(compat.importlib, "import_module", fake)


def test_a_fit_environment_exits_with_0_and_says_ok_on_every_version(versions, capsys):
    code, lines = report(capsys)
    assert code == 0
    assert {lines[name][0] for name in GOOD} == {"ok"}


def test_ranges_are_those_of_pyproject():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, wanted in doctor.PACKAGES.items():
        requirement = re.search(rf'"{name}(==|>=)([\d.]+)(?:,<([\d.]+))?"', text)
        assert requirement, name
        assert requirement[2] == wanted.minimum, name
        if requirement[1] == ">=":
            assert (requirement[3] or "") == wanted.below, name


@pytest.mark.parametrize(
    ("package", "version", "hint"),
    [
        ("torch", "2.9.1+cu128", "torch>=2.10"),
        ("transformers", "5.4.0", "transformers>=5.5,<6"),
        ("transformers", "6.0.0", "transformers>=5.5,<6"),
        ("deepspeed", "0.19.0", "deepspeed>=0.18.9,<0.19"),
        ("mmengine", "0.10.6", "mmengine>=0.10.7,<0.12"),
    ],
)
def test_a_version_out_of_range_fails_with_the_command_that_cures_it(versions, capsys, package, version, hint):
    versions[package] = version
    code, lines = report(capsys)
    assert code == 3
    assert lines[package][0] == "FAIL" and version in lines[package][1] and hint in lines[package][1]


def test_a_missing_needed_package_fails_and_names_the_methods_that_cannot_run(versions, capsys):
    del versions["bitsandbytes"]
    code, lines = report(capsys)
    assert code == 3
    assert lines["bitsandbytes"][0] == "FAIL"
    assert lines["qlora"][0] == "FAIL" and "bitsandbytes" in lines["qlora"][1]
    assert lines["lora"][0] == lines["full"][0] == "ok"


def test_missing_optional_packages_are_fine_and_say_how_to_add_them(versions, capsys):
    del versions["deepspeed"], versions["tensorboard"]
    code, lines = report(capsys)
    assert code == 0
    assert "medtune[deepspeed]" in lines["deepspeed"][1]


def test_kernels_and_mkl_variables_and_two_builds_of_opencv_are_warned_about(versions, capsys, monkeypatch):
    versions.update({"kernels": "0.11", "opencv-python": "5.0", "opencv-python-headless": "5.0"})
    monkeypatch.setenv("MKL_THREADING_LAYER", "GNU")
    code, lines = report(capsys)
    assert code == 0
    assert [lines[topic][0] for topic in ("kernels", "cv2", "MKL")] == ["warn"] * 3


def test_mmengine_lite_beside_mmengine_fails(versions, capsys):
    versions["mmengine-lite"] = "0.10.7"
    code, lines = report(capsys)
    assert code == 3 and lines["mmengine-lite"][0] == "FAIL"


def test_a_cv2_that_lacks_libgl_is_one_line_with_the_cure(versions, capsys, monkeypatch):
    hide_cv2(monkeypatch, "libGL.so.1: cannot open shared object file:\n No such file or directory")
    with pytest.raises(EnvironmentFault, match=r"libGL\.so\.1.*opencv-python-headless") as fault:
        compat.require_cv2()
    assert "\n" not in str(fault.value)
    code, lines = report(capsys)
    assert code == 3 and lines["cv2"] == ("FAIL", str(fault.value))


def test_a_torch_that_does_not_import_fails_in_one_line_and_the_rest_is_still_reported(versions, capsys, monkeypatch):
    real = builtins.__import__

    def fake(name, *args, **kwargs):
        if name == "torch":
            raise OSError("libcudart.so.13: cannot open\nshared object file")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", fake)
    code = doctor.main(Namespace(json=False))
    out = capsys.readouterr().out
    assert code == 3
    assert "libcudart.so.13: cannot open shared object file" in out
    assert re.search(r"^FAIL +full", out, re.M) and re.search(r"^ok +disk", out, re.M)


@pytest.mark.parametrize(("major", "level", "word"), [(9, "ok", "bf16"), (7, "warn", "fp16")])
def test_a_gpu_line_names_memory_and_whether_bf16_is_native(major, level, word):
    gpu = SimpleNamespace(name="Tesla", total_memory=24 * 2**30, major=major, minor=0)
    check = doctor._gpu_check(0, gpu)
    assert check.level == level and "24 GiB" in check.text and word in check.text


@pytest.mark.parametrize(
    ("cuda", "has_driver", "level", "word"),
    [(None, False, "ok", "CPU"), (None, True, "warn", "CPU build"), ("13.0", True, "warn", "CUDA 13.0")],
)
def test_a_driver_without_a_gpu_for_torch_is_a_warning(cuda, has_driver, level, word):
    check = doctor._no_gpu_check("2.13.0", cuda, has_driver)
    assert check.level == level and word in check.text


def test_little_disk_is_a_warning_and_offline_variables_are_shown(versions, capsys, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(100e9, 99e9, 1e9))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    _, lines = report(capsys)
    assert lines["disk"][0] == "warn" and "1.0 GB" in lines["disk"][1]
    assert "HF_HUB_OFFLINE=1" in lines["downloads"][1]


def test_versions_compare_as_numbers_and_ignore_what_follows():
    assert doctor.release("2.13.0+cpu") == (2, 13, 0) > doctor.release("2.9.1")
    assert doctor.release("5.0rc1") == (5, 0)
    assert doctor.release("unknown") == ()


def test_the_command_prints_one_line_per_check_here(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    code = cli.main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert code in (0, 3)
    assert all(line.split()[0] in ("ok", "warn", "FAIL") for line in lines)
    assert (code == 3) == any(line.startswith("FAIL") for line in lines)
    assert {"medtune", "python", "torch", "cpu", "disk"} <= {line.split()[1] for line in lines}
