"""Pieces that the base configs share: functions on the values of a config. They raise nothing: `build.check` does."""

from __future__ import annotations

from typing import Any

from medtune.data.mix import read_sources
from medtune.data.readers import read_data


def names(value: Any) -> Any:
    """A text with commas, as the command line gives it, is a list of names; all else stays what it is.

    >>> names("q_proj,v_proj"), names("all-linear"), names(["q_proj"])
    (['q_proj', 'v_proj'], 'all-linear', ['q_proj'])
    """
    if isinstance(value, str) and "," in value:
        return [name.strip("[( '\")]") for name in value.split(",")]
    return value


def validation_data(
    train_dataset: dict[str, Any], data_path: str | None, max_dataset_length: int | None, required: bool = False
) -> dict[str, Any]:
    """Validation data, read and encoded as the training data: a file of its own, or the part split off by `val_ratio`.

    With neither, building it gives None; if it is `required`, the check of the config says what is missing.
    """
    source = train_dataset.get("dataset")
    changes = {"part": "val", "max_dataset_length": max_dataset_length, "required": required}
    changes["dataset"] = dict(source) if isinstance(source, dict) else source
    if data_path is not None:
        as_training = isinstance(source, dict) and source.get("type") in (read_data, read_sources)
        changes["dataset"] = dict(source if as_training else {"type": read_sources}, data_path=data_path)
        changes["part"] = "all"
    return dict(train_dataset, **changes)
