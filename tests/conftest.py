"""Shared fixtures: hermetic by default, small models and tokenizers, `../shared` only where it is there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two test workers on two cores: more threads only wait for each other

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "medtune" / "assets"


@pytest.fixture(scope="session", autouse=True)
def medtune_cache(tmp_path_factory):
    """Prepared data of tests, also of the processes they start, stays out of the user's cache."""
    folder = tmp_path_factory.mktemp("medtune_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDTUNE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_model_path() -> Path:
    """Folder of the embedded base model, med-llama-tiny (7.9 M parameters, ChatML template)."""
    return ASSETS / "med-llama-tiny"


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_model_path):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model_path)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and models beside the checkout; tests that need them skip where they are absent."""
    folder = ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("../shared (real data and models) is not beside this checkout")
    return folder
