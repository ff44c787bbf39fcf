"""What kind of container a data set lies in: a file by its content, a folder, a registry's entry or a hub's."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from medtune.data.archives import Source, is_workbook, kind_of, suffix_of
from medtune.data.containers import CSV, HEAD, JSON, JSON_BEGINS, TEXT, XLSX, XML
from medtune.data.decoding import codec_of, head_of
from medtune.data.readers import EMBEDDED
from medtune.data.registry import find_entry
from medtune.data.tables import sniff_delimiter
from medtune.data.texts import is_tab_table

SUFFIXES_OF = {
    "JSON array": (".json",),
    "JSON lines": (".jsonl", ".ndjson"),
    "JSON object": (".json",),
    "table": CSV,
    "text": TEXT,
    "XML": XML,
    "xlsx workbook": XLSX,
}


def describe(name: str, dataset_info: str | Path | None = None, encoding: str | None = None) -> dict[str, str]:
    """Facts about a data set's container, in the order to show them; reads no row.

    Raises:
        DataError: a kind of file that is not read, or text in no known encoding.
    """
    if (entry := find_entry(name, dataset_info)) is not None:
        path = entry.require()
        if path is None:
            return {"container": f"{entry.place} {entry.location}", "entry": entry.where}
        return {**describe(str(path), encoding=encoding), "entry": entry.where}
    path = EMBEDDED.get(name) or Path(name).expanduser()
    if path.is_dir():
        return {"container": "folder", "files": str(sum(1 for file in path.rglob("*") if file.is_file()))}
    if not path.is_file():
        return {"container": "hub data set"}
    with path.open("rb") as file:
        facts = _of_file(Source(path.name, file, suffix_of(path.name)), encoding)
    kind = facts["container"]
    if path.suffix.lower() not in SUFFIXES_OF.get(kind, (path.suffix.lower(),)):
        facts["suffix"] = f"{path.suffix or 'none'}, which the content is not"
    return {**facts, "bytes": str(path.stat().st_size)}


def _of_file(source: Source, encoding: str | None) -> dict[str, str]:
    kind = kind_of(source)
    if kind == "text":
        return _of_text(source.file, source, encoding)
    if kind == "zip":
        is_book = source.suffix in XLSX or is_workbook(source)
        return {"container": "xlsx workbook" if is_book else "zip archive"}
    return {"container": f"{kind} workbook" if kind == "xls" else kind}


def _of_text(file: BinaryIO, source: Source, encoding: str | None) -> dict[str, str]:
    codec = codec_of(file, encoding)
    head = head_of(file, codec, HEAD)
    facts = {"encoding": codec.removesuffix("-sig")}
    start = head.lstrip()
    if start.startswith("<?xml"):
        return {"container": "XML", **facts}
    if JSON_BEGINS.match(head) or source.suffix in JSON:
        return {"container": _json_kind(start), **facts}
    if source.suffix in CSV or (source.suffix == ".txt" and is_tab_table(head, len(head) < HEAD)):
        delimiter = "\t" if source.suffix != ".csv" and "\t" in head else sniff_delimiter(head)
        return {"container": "table", **facts, "delimiter": repr(delimiter)}
    return {"container": "text", **facts}


def _json_kind(start: str) -> str:
    if start.startswith("["):
        return "JSON array"
    lines = [line.strip() for line in start.splitlines() if line.strip()][:2]
    alone = len(lines) < 2 or lines[1].startswith("{")
    return "JSON lines" if lines and lines[0].endswith("}") and alone else "JSON object"
