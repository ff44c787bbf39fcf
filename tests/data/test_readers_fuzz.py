"""Bytes changed at random in small files of every kind: rows or a fault of one line, never anything else."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import tarfile
import zipfile
from pathlib import Path

import openpyxl
import pytest

from medtune.data.readers import read_data
from medtune.errors import DataError

ROWS = [{"question": f"发热{i}？", "answer": "secret-" + "体温升高。" * 3, "n": i} for i in range(4)]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = ("question,answer\n" + "".join(f'"{row["question"]}","{row["answer"]}"\n' for row in ROWS)).encode()
XML = b"<Document><QAPairs><QAPair><Question>q</Question><Answer>secret</Answer></QAPair></QAPairs></Document>"
FORMS = ["jsonl", "json", "keyed.json", "csv", "gb.csv", "txt", "utf16.txt", "xml", "xlsx", "xls", "parquet", "arrow"]
FORMS += ["jsonl.gz", "jsonl.bz2", "jsonl.xz", "zip", "tar", "tar.gz"]


def sample(form: str) -> bytes:
    if form in ("xlsx", "parquet", "arrow", "zip", "tar"):
        return binary_sample(form)
    return {
        "jsonl": JSONL,
        "json": json.dumps(ROWS, ensure_ascii=False, indent=1).encode(),
        "keyed.json": json.dumps({str(i): row for i, row in enumerate(ROWS)}).encode(),
        "csv": CSV,
        "gb.csv": CSV.decode().encode("gb18030"),
        "txt": "\n".join(row["answer"] for row in ROWS).encode(),
        "utf16.txt": "\n".join(row["answer"] for row in ROWS).encode("utf-16"),
        "xml": XML,
        "xls": (Path(__file__).parent / "files" / "drugs.xls").read_bytes(),
        "jsonl.gz": gzip.compress(JSONL),
        "jsonl.bz2": bz2.compress(JSONL),
        "jsonl.xz": lzma.compress(JSONL),
        "tar.gz": gzip.compress(binary_sample("tar")) if form == "tar.gz" else b"",
    }[form]


def binary_sample(form: str) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    buffer = io.BytesIO()
    table = pa.Table.from_pylist(ROWS)
    if form == "xlsx":
        book = openpyxl.Workbook()
        for row in [["question", "answer", "n"], *(list(row.values()) for row in ROWS)]:
            book.active.append(row)
        book.active.merge_cells("A2:A3")
        book.save(buffer)
    elif form == "parquet":
        pa.parquet.write_table(table, buffer)
    elif form == "arrow":
        with pa.ipc.new_stream(buffer, table.schema) as writer:
            writer.write_table(table)
    elif form == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jsonl", JSONL)
            archive.writestr("b.csv", CSV)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name, data in (("a.jsonl", JSONL), ("b.csv", CSV)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def mutated(data: bytes, draw: random.Random) -> bytes:
    """One to three changes: other bytes, bytes left out, bytes twice, an end cut off."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 3)):
        place, length = draw.randrange(len(changed) + 1), draw.choice((1, 1, 2, 8, 64))
        kind = draw.randrange(5)
        if kind == 0:
            changed[place : place + length] = draw.randbytes(length)
        elif kind == 1:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[place : place + length]
        elif kind == 3:
            del changed[place:]
        else:
            changed[place:place] = draw.choice((b"\0", b'"', b"{", b"[", b"\n", b",", b"\xff", b"NaN", b"\\ud800"))
    return bytes(changed)


def read_mutations(form: str, folder: Path, seeds: range) -> int:
    """Read that many mutations; return how many had a fault."""
    data, num_faulty = sample(form), 0
    path = folder / (f"a.{form}" if form not in ("gb.csv", "utf16.txt", "keyed.json") else form)
    path.write_bytes(data)
    assert sum(1 for _ in read_data(path)) > 0
    for seed in seeds:
        path.write_bytes(mutated(data, random.Random(seed)))
        faults: list[DataError] = []
        try:
            for row in read_data(path).each(faults.append):
                assert isinstance(row.fields, dict)
                assert row.origin.startswith(path.name)
        except DataError as fault:
            faults.append(fault)
        for fault in faults:
            assert "\n" not in str(fault)
            assert "secret" not in str(fault)
        num_faulty += bool(faults)
    return num_faulty


@pytest.mark.parametrize("form", FORMS)
def test_changed_bytes_give_rows_or_one_line(form, tmp_path):
    assert read_mutations(form, tmp_path, range(40)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_many_changed_bytes_give_rows_or_one_line(form, tmp_path):
    assert read_mutations(form, tmp_path, range(1000, 1500)) > 0
