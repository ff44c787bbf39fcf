"""dataset_info.json: data sets by name, in the form of CareLlama and LLaMA-Factory, read as it is.

An entry says where the rows are (a file or folder beside the json, or a hub id) and what its columns and roles are
called. Reading one gives rows under the names that the map functions know (`instruction`, `conversations`, ...), so the
rest of the way is that of any other file. Entries that name a script are refused: a data set is not a program.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medtune.data.hubs import MODELSCOPE
from medtune.data.readers import EMBEDDED, Rows, read_data, rows_of
from medtune.data.records import Row
from medtune.errors import DataError, nearest

FILE = "dataset_info.json"
NUM_NAMES = 20  # of a registry, in a message
LOOKED_IN = (Path(), Path("data"))
"""Where a dataset_info.json is looked for, from the current folder, if none is named."""

HUBS = {"hf_hub_url": "Hugging Face", "ms_hub_url": "ModelScope", "om_hub_url": "Modelers"}
PLACES = (*HUBS, "script_url", "cloud_file_name", "file_name")
KEYS = (
    *(*PLACES, "file_sha1", "formatting", "ranking", "columns", "tags", "subset", "split", "folder", "num_samples"),
    "stage",  # CareLlama's; the config says what is trained, so it changes nothing here
)
FORMATTINGS = ("alpaca", "sharegpt", "openai")

# Column of an entry -> its default; None where the rows have it only if the entry says so.
COLUMNS: dict[str, dict[str, str | None]] = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output", "history": None},
    "sharegpt": {"messages": "conversations"},
    "openai": {"messages": "messages"},
}
SHARED_COLUMNS = ("system", "tools", "chosen", "rejected", "kto_tag")
MEDIA = ("images", "audios", "videos")
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
# Column of an entry -> the key that map functions read.
CANONICAL = {"prompt": "instruction", "query": "input", "response": "output", "kto_tag": "label"}


@dataclass(frozen=True)
class Entry:
    """One data set of a registry."""

    name: str
    file: Path
    """Where the registry lies; a file is looked for beside it."""
    place: str
    """One of `PLACES`: which of them the entry is read from."""
    location: str
    """A file name, a hub id, ..., as `place` says."""
    formatting: str = "alpaca"
    ranking: bool = False
    columns: dict[str, str] = field(default_factory=dict)
    """Column of the registry's words (prompt, messages, ...) -> the data's; a column mapped to "" is not here."""
    tags: dict[str, str] = field(default_factory=dict)
    """The data's words for roles."""
    file_sha1: str | None = None
    subset: str | None = None
    split: str | None = None
    data_dir: str | None = None
    num_samples: int | None = None
    unknown: tuple[str, ...] = ()
    """Keys that no known form has, with a guess where one is near: they change nothing."""

    @property
    def where(self) -> str:
        """How messages call the entry."""
        return f"{self.file}: {self.name!r}"

    def require(self) -> Path | None:
        """Check that the entry can be read; the file or folder, None of a hub. Reads no rows.

        Raises:
            DataError: a script, a bucket, pictures or sound; or the file is not there.
        """
        if self.place == "script_url":
            raise DataError(
                f"{self.where}: script_url {self.location!r} is a program to run, and medtune runs none from data. "
                "Write the rows to a file and name it as file_name."
            )
        if self.place in ("cloud_file_name", "om_hub_url"):
            raise DataError(f"{self.where}: {self.place} is not read from here; fetch it and name it as file_name.")
        if media := [column for column in MEDIA if column in self.columns]:
            raise DataError(f"{self.where}: it has {' and '.join(media)}; medtune trains on text.")
        if self.place != "file_name":
            return None
        path = self.file.parent / self.location
        if Path(self.location).is_absolute() or ".." in Path(self.location).parts:
            raise DataError(f"{self.where}: file_name {self.location!r} leads out of the registry's folder.")
        if not path.exists():
            beside = nearest(path.name, [child.name for child in path.parent.iterdir()]) if path.parent.is_dir() else ""
            raise DataError(f"{self.where}: no {self.location!r} beside it.{beside} Put the file there.")
        return path

    def rows(self, split: str = "train") -> Rows:
        """Name the rows of the entry; see `read_data`.

        Raises:
            DataError: from `require`, and while looping; the sha1 is compared before the first row.
        """
        path = self.require()
        for told in self.unknown:
            logging.getLogger(__name__).warning("%s: %s", self.where, told)
        rows = self._hub_rows(self.split or split) if path is None else read_data(path, split=split)
        return Rows(lambda: self._renamed(path, rows), lambda: (told := rows.identity()) and [repr(self), told])

    def _renamed(self, path: Path | None, rows: Rows) -> Iterator[Row]:
        if self.file_sha1 and path is not None:
            _compare_sha1(path, self.file_sha1, self.where)
        for row in rows:
            yield Row(self._fields(row), row.origin)

    def _hub_rows(self, split: str) -> Rows:
        """Rows of a hub data set, of a subset or a folder of it if the entry names one."""

        if self.place == "ms_hub_url":
            return read_data(f"{MODELSCOPE}{self.location}", split=split)
        if self.data_dir is None:
            return read_data(self.location, split=split, subset=self.subset)

        def read() -> Iterator[Row]:
            from datasets import load_dataset

            try:
                dataset = load_dataset(self.location, self.subset, data_dir=self.data_dir, split=split)
            except Exception as fault:  # datasets, the hub client and its HTTP library each raise their own
                reason = " ".join(str(fault).split())[:160]
                raise DataError(
                    f"{self.where}: the hub did not give {self.location} ({type(fault).__name__}: {reason})."
                ) from None
            return rows_of(dataset, split, name=self.location)

        return Rows(read)

    def _fields(self, row: Row) -> dict[str, Any]:
        """The row under the names that map functions know; columns the entry does not name are left out."""
        if not isinstance(row.fields, Mapping):
            raise DataError(f"{row.origin}: wanted an object, got a {type(row.fields).__name__}.")
        found = {column: row.fields[key] for column, key in self.columns.items() if key in row.fields}
        for needed in ("prompt", "messages"):
            if needed in self.columns and needed not in found:
                known = nearest(self.columns[needed], map(str, row.fields))
                raise DataError(f"{row.origin}: no column {self.columns[needed]!r}, which {self.name!r} names.{known}")
        if self.ranking and not ({"chosen", "rejected"} <= set(found) or isinstance(found.get("response"), list)):
            raise DataError(
                f"{row.origin}: {self.name!r} is a ranking, and the row has no chosen and rejected answers."
            )
        return _alpaca(found) if self.formatting == "alpaca" else self._dialogue(found, row.origin)

    def _dialogue(self, found: dict[str, Any], origin: str) -> dict[str, Any]:
        """ShareGPT's row under its own names; OpenAI's stays as it is."""
        renamed = {CANONICAL.get(column, column): value for column, value in found.items() if value is not None}
        if self.formatting == "openai":
            return renamed
        turns = self._turns(renamed.pop("messages", None), origin)
        for side in ("chosen", "rejected"):
            if isinstance(renamed.get(side), Mapping):
                renamed[side] = self._turns([renamed[side]], origin)[0]
        return {"conversations": turns, **renamed}

    def _turns(self, turns: Any, origin: str) -> list[dict[str, Any]]:
        """ShareGPT turns, {"from", "value"}, of what the entry's tags call otherwise."""
        if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
            raise DataError(f"{origin}: {self.columns['messages']}: wanted a list of objects.")
        role, content = self.tags["role_tag"], self.tags["content_tag"]
        if any(role not in turn or content not in turn for turn in turns):
            raise DataError(f"{origin}: {self.columns['messages']}: wanted objects with {role!r} and {content!r}.")
        words = {self.tags[tag]: word for tag, word in TAGS.items() if tag not in ("role_tag", "content_tag")}
        return [{"from": words.get(turn[role], turn[role]), "value": turn[content]} for turn in turns]


def _alpaca(found: dict[str, Any]) -> dict[str, Any]:
    """Alpaca's row, text alone where there is no answer, or a rated answer as messages."""
    if not {"response", "chosen"} & set(found):
        return {"text": found["prompt"]}
    renamed = {CANONICAL.get(column, column): value for column, value in found.items() if value is not None}
    if "label" not in renamed:
        return renamed
    question = "\n".join(part for part in (renamed["instruction"], renamed.get("input")) if part)
    system = [{"role": "system", "content": renamed["system"]}] if renamed.get("system") else []
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": renamed.get("output")}]
    return {"messages": system + turns, "label": renamed["label"]}


def _compare_sha1(path: Path, wanted: str, where: str) -> None:
    if path.is_dir():
        raise DataError(f"{where}: file_sha1 is of a file, and {path.name!r} is a folder. Take the key out.")
    digest = hashlib.sha1(usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    if digest.hexdigest() != wanted.strip().lower():
        raise DataError(
            f"{where}: {path.name} is not the file that was meant: its sha1 is {digest.hexdigest()}, file_sha1 says "
            f"{wanted}. Fetch it again, or correct the entry."
        )


# ---------------------------------------------------------------- the json


def read_registry(path: str | Path) -> dict[str, Entry]:
    """Read a dataset_info.json, or that of a folder; no data is read.

    Raises:
        DataError: it is not there, not JSON, or an entry is of another form; names the entry.
    """
    file = Path(path).expanduser()
    file = file / FILE if file.is_dir() else file
    try:
        found = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; dataset_info names a {FILE} or the folder that holds one.") from None
    except (OSError, ValueError, RecursionError) as fault:
        raise DataError(f"{file}: not readable as JSON ({type(fault).__name__}).") from None
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise DataError(f"{file}: wanted an object of data sets, each an object.")
    return {name: _entry(name, raw, file) for name, raw in found.items()}


def find_entry(name: Any, dataset_info: str | Path | None = None) -> Entry | None:
    """The entry of a data set's name, or None for what is a path or a hub id.

    Without `dataset_info`, a file, folder or embedded data set of that name comes first, and only the registries of the
    current folder and of ./data are looked in.

    Raises:
        DataError: the registry that is named cannot be read, or has not a name that no path and no hub id is.
    """
    name = str(name)
    if dataset_info is not None:
        registry = read_registry(dataset_info)
        if name not in registry and name not in EMBEDDED and not (set("/.:") & set(name) or Path(name).exists()):
            known = ", ".join(list(registry)[:NUM_NAMES])
            raise DataError(f"{dataset_info}: no data set {name!r}; it has {known}.{nearest(name, registry)}")
        return registry.get(name)
    if "/" in name or name in EMBEDDED or Path(name).exists():
        return None
    registries = (read_registry(folder / FILE) for folder in LOOKED_IN if (folder / FILE).is_file())
    return next((registry[name] for registry in registries if name in registry), None)


def _entry(name: str, raw: Mapping[str, Any], file: Path) -> Entry:
    where = f"{file}: {name!r}"
    places = [key for key in PLACES if raw.get(key)]
    if not places:
        raise DataError(f"{where}: it names no place; wanted one of {', '.join(PLACES)}.")
    for key in (*PLACES, "file_sha1", "subset", "split", "folder"):
        if not isinstance(raw.get(key, ""), (str, type(None))):
            raise DataError(f"{where}: {key}: wanted text, got a {type(raw[key]).__name__}.")
    formatting = raw.get("formatting", "alpaca")
    if formatting not in FORMATTINGS:
        raise DataError(f"{where}: formatting {formatting!r} is none of {', '.join(FORMATTINGS)}.")
    num_samples = raw.get("num_samples")
    if num_samples is not None and (not isinstance(num_samples, int) or num_samples < 1):
        raise DataError(f"{where}: num_samples: wanted a whole number, 1 or more.")
    known_columns = (*(c for columns in COLUMNS.values() for c in columns), *SHARED_COLUMNS, *MEDIA)
    named = {group: _names(raw.get(group), where, group) for group in ("columns", "tags")}
    return Entry(
        name=name,
        file=file,
        place=places[0],
        location=raw[places[0]],
        formatting=formatting,
        ranking=raw.get("ranking") is True,
        columns=_columns(named["columns"], formatting, where),
        tags={**TAGS, **named["tags"]},
        file_sha1=raw.get("file_sha1"),
        subset=raw.get("subset"),
        split=raw.get("split"),
        data_dir=raw.get("folder"),
        num_samples=num_samples,
        unknown=(
            *_unknown(raw, KEYS, "key"),
            *_unknown(named["columns"], known_columns, "column"),
            *_unknown(named["tags"], TAGS, "tag"),
        ),
    )


def _names(raw: Any, where: str, group: str) -> dict[str, str]:
    if raw is None:
        return {}
    if not isinstance(raw, Mapping) or not all(isinstance(value, (str, type(None))) for value in raw.values()):
        raise DataError(f"{where}: {group}: wanted an object of names.")
    return {key: value for key, value in raw.items() if value}


def _columns(named: dict[str, str], formatting: str, where: str) -> dict[str, str]:
    """The columns an entry names; without any, those of its formatting."""
    defaults = COLUMNS[formatting]
    columns = named or {column: key for column, key in defaults.items() if key}
    needed = next(iter(defaults))
    if needed not in columns:
        raise DataError(f"{where}: columns: it names no {needed!r}.")
    return columns


def _unknown(named: Mapping[str, Any], known: Any, kind: str) -> list[str]:
    return [f"unknown {kind} {key!r} changes nothing.{nearest(key, known)}" for key in named if key not in known]
