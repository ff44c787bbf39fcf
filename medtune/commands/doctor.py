"""Check this machine: versions, GPU, what works here, known conflicts.

Every line is `ok`, `warn` or `FAIL`. The exit code is 0, or 3 if a line says FAIL.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from medtune import __version__
from medtune.errors import EnvironmentFault

EXAMPLES = "  medtune doctor\n  medtune doctor --json"


class Check(NamedTuple):
    """One line of the report."""

    level: str
    """One of "ok", "warn" and "FAIL"."""
    topic: str
    text: str


class Requirement(NamedTuple):
    """A package: the oldest version that is fit, the first that is not, and whether medtune runs without it."""

    minimum: str
    below: str
    needed: bool
    note: str


# The ranges are those of pyproject.toml; a test compares the two.
PACKAGES = {
    "torch": Requirement("2.10", "", True, "older: weights_only loads are not safe (CVE-2026-24747)"),
    "mmengine": Requirement("0.10.7", "0.12", True, "the training engine"),
    "transformers": Requirement("5.5", "6", True, "older: a model's config.json may run code (CVE-2026-5241)"),
    "peft": Requirement("0.19", "1", True, "LoRA and QLoRA"),
    "accelerate": Requirement("1.10", "", True, "used by transformers to place weights"),
    "datasets": Requirement("4", "", True, "data from a hub"),
    "safetensors": Requirement("0.5", "", True, "checkpoints"),
    "openpyxl": Requirement("3.1", "", True, "xlsx files"),
    "bitsandbytes": Requirement("0.50", "", True, "QLoRA, 4 and 8 bit"),
    "deepspeed": Requirement("0.18.9", "0.19", False, "0.19 dropped optimizers that mmengine imports"),
    "tensorboard": Requirement("2.15", "", False, "event files"),
}
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
MKL_VARIABLES = ("MKL_SERVICE_FORCE_INTEL", "MKL_THREADING_LAYER")
LOW_DISK_GB = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def main(args: argparse.Namespace) -> int:
    """Print the report. Returns 0, or 3 if a check failed."""
    checks = [*_versions(), *_conflicts(), *_machine(), *_methods(), *_surroundings()]
    failed = [c for c in checks if c.level == "FAIL"]
    if args.json:
        print(json.dumps({"ok": not failed, "checks": [c._asdict() for c in checks]}, ensure_ascii=False, indent=2))
    else:
        for check in checks:
            print(f"{check.level:<4}  {check.topic:<14} {check.text}")
    return EnvironmentFault.exit_code if failed else 0


def installed(package: str) -> str | None:
    """Version of an installed package, without importing it, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """Numbers of a version, for comparison: "2.13.0+cpu" -> (2, 13, 0); "5.0rc1" -> (5, 0)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _versions() -> Iterator[Check]:
    yield Check("ok", "medtune", __version__)
    python = platform.python_version()
    fits = (3, 10) <= release(python)[:2] <= (3, 12)
    yield Check("ok" if fits else "FAIL", "python", python if fits else f"{python}; medtune is tested on 3.10 to 3.12")
    for name, wanted in PACKAGES.items():
        yield _version_check(name, wanted, installed(name))


def _version_check(name: str, wanted: Requirement, version: str | None) -> Check:
    if version is None and wanted.needed:
        return Check("FAIL", name, f"not installed ({wanted.note}). Run: pip install '{name}'")
    if version is None:
        return Check("ok", name, f"not installed, not needed; pip install 'medtune[{name}]' adds it")
    span = f">={wanted.minimum}" + (f",<{wanted.below}" if wanted.below else "")
    too_old = release(version) < release(wanted.minimum)
    too_new = bool(wanted.below) and release(version) >= release(wanted.below)
    if too_old or too_new:
        return Check("FAIL", name, f"{version} does not fit: {wanted.note}. Run: pip install '{name}{span}'")
    return Check("ok", name, version)


def _conflicts() -> Iterator[Check]:
    from medtune.compat import require_cv2

    try:
        require_cv2()
    except EnvironmentFault as fault:
        yield Check("FAIL", "cv2", str(fault))
    else:
        both = installed("opencv-python") and installed("opencv-python-headless")
        text = "opencv-python and opencv-python-headless overwrite each other; uninstall opencv-python"
        yield Check("warn", "cv2", text) if both else Check("ok", "cv2", "imports")
    if installed("mmengine-lite"):
        yield Check("FAIL", "mmengine-lite", "clashes with mmengine. Run: pip uninstall mmengine-lite")
    if version := installed("kernels"):
        text = f"{version} is installed: transformers and bitsandbytes may fetch code from a hub; uninstall it"
        yield Check("warn", "kernels", text)
    if names := [name for name in MKL_VARIABLES if name in os.environ]:
        yield Check("warn", "MKL", f"{', '.join(names)} set; medtune does not need them, unset them")


def _machine() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as fault:
        yield Check("FAIL", "torch", f"does not import: {' '.join(str(fault).split())}")
        return
    yield Check("ok", "cpu", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads used by torch")
    if not torch.cuda.is_available():
        yield _no_gpu_check(torch.__version__, torch.version.cuda, has_driver=shutil.which("nvidia-smi") is not None)
    for i in range(torch.cuda.device_count()):
        yield _gpu_check(i, torch.cuda.get_device_properties(i))


def _no_gpu_check(torch_version: str, cuda: str | None, has_driver: bool) -> Check:
    """No GPU for torch: expected on most machines, a mistake where the driver is installed."""
    if not has_driver:
        return Check("ok", "gpu", "none; everything runs on the CPU, slowly")
    reason = "is a CPU build"
    if cuda:
        reason = f"is built for CUDA {cuda}; the driver may be too old, or CUDA_VISIBLE_DEVICES empty"
    return Check("warn", "gpu", f"an NVIDIA driver is here, but torch {torch_version} finds no GPU: it {reason}")


def _gpu_check(index: int, properties: Any) -> Check:
    """One GPU: name, memory in GiB, compute capability; native bf16 begins at capability 8."""
    memory = f"{properties.total_memory / 2**30:.0f} GiB"
    capability = f"compute capability {properties.major}.{properties.minor}"
    if properties.major >= 8:
        return Check("ok", f"gpu {index}", f"{properties.name}, {memory}, {capability}, bf16")
    return Check("warn", f"gpu {index}", f"{properties.name}, {memory}, {capability}, no native bf16: use fp16")


def _methods() -> Iterator[Check]:
    """What can be trained here, judged by what is installed."""
    place = _place()
    yield _method("full", ("torch", "transformers", "mmengine"), place)
    yield _method("lora", ("torch", "transformers", "mmengine", "peft"), place)
    yield _method("qlora", ("torch", "transformers", "mmengine", "peft", "bitsandbytes"), place)


def _place() -> str:
    try:
        import torch
    except (ImportError, OSError):
        return "nothing: torch does not import"
    return "the GPU and the CPU" if torch.cuda.is_available() else "the CPU"


def _method(name: str, packages: tuple[str, ...], place: str) -> Check:
    lacking = [package for package in packages if not _fits(package)]
    if lacking or place.startswith("nothing"):
        return Check("FAIL", name, f"cannot train: {', '.join(lacking) or 'torch'} is missing or does not fit")
    return Check("ok", name, f"trains on {place}")


def _fits(package: str) -> bool:
    version = installed(package)
    return version is not None and _version_check(package, PACKAGES[package], version).level == "ok"


def _surroundings() -> Iterator[Check]:
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    text = f"{free_gb:.1f} GB free in this folder"
    low = free_gb < LOW_DISK_GB
    yield Check("warn" if low else "ok", "disk", f"{text}; a 7B model and its checkpoints want tens" if low else text)
    offline = [f"{name}={os.environ[name]}" for name in OFFLINE_VARIABLES if os.environ.get(name)]
    text = (
        f"{', '.join(offline)}: nothing is downloaded" if offline else "allowed for hub ids; HF_HUB_OFFLINE=1 forbids"
    )
    yield Check("ok", "downloads", text)
