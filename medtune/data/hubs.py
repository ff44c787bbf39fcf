"""Data sets of the Hugging Face and ModelScope hubs, by name. Code of a repository never runs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from medtune.errors import DataError

HUB_FILE = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)/(.+)")  # one file of a Hugging Face data set
HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?")
MODELSCOPE = "modelscope://"


def on_modelscope(data_path: str) -> str | None:
    """ORG/NAME of a ModelScope data set: `modelscope://ORG/NAME`, or ORG/NAME where MEDTUNE_HUB=modelscope."""
    name = data_path.removeprefix(MODELSCOPE)
    if name == data_path and os.environ.get("MEDTUNE_HUB", "").lower() != "modelscope":
        return None
    return name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else None


def load_hub(name: str, split: str, subset: str | None, streaming: bool) -> Any:
    """A data set of the Hugging Face hub: downloaded, or with `streaming` read as it comes.

    Raises:
        DataError: there is none by that name, none to be had, or it needs a script of its repository.
    """
    from datasets import load_dataset

    options: dict[str, Any] = {"split": split, **({"streaming": True} if streaming else {})}
    try:
        return load_dataset(name, subset, **options) if subset else load_dataset(name, **options)
    except Exception as fault:  # datasets, the hub client and its HTTP library each raise their own
        reason = " ".join(str(fault).split())[:160]
        if "script" in reason.lower():
            raise DataError(
                f"{name}: this data set is made by a script of its repository, and scripts are never run. Name one of "
                f"its files instead: hf://datasets/{name}/FILE."
            ) from fault
        raise DataError(
            f"{name}: no such file or folder, and no Hugging Face data set could be loaded by that name "
            f"({type(fault).__name__}: {reason})."
        ) from fault


def download_file(repo: str, file: str) -> Path:
    """Local copy of one file of a Hugging Face data set."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, file, repo_type="dataset"))
    except Exception as fault:  # the hub client and its HTTP library each raise their own
        reason = " ".join(str(fault).split())[:160]
        raise DataError(f"hf://datasets/{repo}/{file}: not to be had ({type(fault).__name__}: {reason}).") from fault


def download_modelscope(name: str) -> Path:
    """Local folder with the files of a ModelScope data set.

    Raises:
        DataError: the library is not installed, or the data set is not to be had.
    """
    try:
        from modelscope.hub.snapshot_download import dataset_snapshot_download
    except ImportError:
        raise DataError(
            f"{MODELSCOPE}{name}: the modelscope library is not installed. Run `pip install modelscope`."
        ) from None
    try:
        return Path(dataset_snapshot_download(name))
    except Exception as fault:  # the library raises many
        reason = " ".join(str(fault).split())[:160]
        raise DataError(f"{MODELSCOPE}{name}: not to be had ({type(fault).__name__}: {reason}).") from fault
