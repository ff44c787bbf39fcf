"""The catalogue of data sets: `data_path="catalog:NAME"` is a local copy of one, or else its place on a hub.

A local copy is a folder or file of that name in $MEDTUNE_DATA, or without that in ./data. A set on no hub, or behind a
form or a drive, can be had as a local copy alone; what to do for one is said in one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medtune.data.catalog_table import FINE_TUNING, PRE_TRAINING, REWARD
from medtune.errors import DataError, nearest

PREFIX = "catalog:"
FOLDER = "MEDTUNE_DATA"
STAGES = {"pre-training": PRE_TRAINING, "fine-tuning": FINE_TUNING, "reward": REWARD}


@dataclass(frozen=True)
class DataSet:
    """One data set of the catalogue."""

    name: str
    stage: str
    """One of `STAGES`: what it is to train."""
    place: str
    """A Hugging Face id, one file of a hub (hf://datasets/...), or an address to get it from."""
    shape: str
    """What a row holds."""
    files: str = ""
    """Which files of the place, and where they lie."""
    language: str = "zh"
    rows: int | None = None
    """As its page states it; None if it does not."""
    licence: str = "not stated"
    map_fn: str | None = None
    """The map function that reads its rows; None if they must be brought into shape first."""
    columns: Mapping[str, str] | None = None
    """`columns` of `read_data`, if the map function knows its columns by other names."""
    get: str = ""
    """What to know, or to do, to get it."""

    @property
    def on_hub(self) -> bool:
        """True if it is read from a hub, with no copy made by hand."""
        return not self.place.startswith("https://")

    @property
    def address(self) -> str:
        """Its page."""
        owner_and_name = "/".join(self.place.removeprefix("hf://datasets/").split("/")[:2])
        return f"https://huggingface.co/datasets/{owner_and_name}" if self.on_hub else self.place

    def local_copy(self) -> Path | None:
        """A folder or file of its name where local copies lie, or None."""
        folder = data_folder()
        candidates = [folder / self.name, *sorted(folder.glob(f"{self.name}.*"))]
        return next((path for path in candidates if path.exists()), None)

    def how_to_get(self) -> str:
        """What to do for a local copy, in one sentence."""
        target = f"{data_folder() / self.name}"
        if self.place.startswith("https://github.com/") and not self.get and "drive" not in self.files:
            return f"Run `git clone --depth 1 {self.place} {target}`{self._only()}."
        return f"{self.get or f'Download it from {self.place}'}, and put it in the folder {target}{self._only()}."

    def _only(self) -> str:
        return f", and keep of it: {self.files}" if self.files else ""

    def as_dict(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        return {**asdict(self), "columns": dict(self.columns) if self.columns else None}


def data_folder() -> Path:
    """Where local copies lie."""
    return Path(os.environ.get(FOLDER) or "data").expanduser()


def catalog() -> dict[str, DataSet]:
    """Every data set by its name."""
    return {name: DataSet(name, stage, **entry) for stage, table in STAGES.items() for name, entry in table.items()}


def named(name: str) -> DataSet:
    """The data set of a name.

    Raises:
        DataError: there is none, with the near ones.
    """
    known = catalog()
    if name not in known:
        raise DataError(f"{PREFIX}{name}: no such data set.{nearest(name, known)} `medtune data catalog` lists them.")
    return known[name]


def located(
    data_path: str | Path, columns: Mapping[str, str] | None = None
) -> tuple[str | Path, Mapping[str, str] | None]:
    """A path or hub id for a name of the catalogue, with its columns unless there are own ones; all else as it is.

    Raises:
        DataError: no such name, with the near ones; or the set must be fetched by hand, with how.
    """
    text = str(data_path)
    if not text.startswith(PREFIX):
        return data_path, columns
    entry = named(text.removeprefix(PREFIX))
    columns = entry.columns if columns is None else columns
    if (copy := entry.local_copy()) is not None:
        return copy, columns
    if not entry.on_hub:
        raise DataError(f"{text}: no copy of it here, and no hub has it. {entry.how_to_get()}")
    return entry.place, columns


def matching(pattern: str) -> Iterable[DataSet]:
    """Data sets with a text in their name, stage, place, language or licence."""
    wanted = pattern.lower()
    for entry in catalog().values():
        told = (entry.name, entry.stage, entry.place, entry.files, entry.language, entry.licence)
        if any(wanted in text.lower() for text in told):
            yield entry
