"""Containers with one defect each, drawn by seed: workbooks, columns, archives, folders and links; and sound files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
from defective_files import BY_CHECK, CANARY, Defective, defect, lines_of, messages_of, pair, rows, write_lines

JSONL = "a.jsonl"


def workbook(draw: random.Random, folder: Path, change: Callable[[Any, int], None]) -> Defective:
    """A workbook of one sheet that is changed; the changed row is told."""
    values, bad = rows(draw)
    book = openpyxl.Workbook()
    sheet = book.active
    for cells in (["question", "answer"], *([*value.values()] for value in values)):
        sheet.append(cells)
    change(sheet, bad + 2)
    book.save(folder / "a.xlsx")
    return Defective(folder / "a.xlsx", f"a.xlsx!Sheet!B{bad + 2}")


def text_of(draw: random.Random) -> bytes:
    """A sound file of JSON lines."""
    return ("\n".join(lines_of(rows(draw)[0])) + "\n").encode()


def put(folder: Path, name: str, data: bytes) -> Defective:
    """A file of these bytes, whose name is all that a message can tell."""
    (folder / name).write_bytes(data)
    return Defective(folder / name, name)


def damaged(draw: random.Random, data: bytes) -> bytes:
    """An end cut off, or bytes in the middle overwritten."""
    if draw.random() < 0.5:
        return data[: draw.randrange(8, len(data) - 8)]
    middle = len(data) // 2
    return data[: middle - 20] + draw.randbytes(40) + data[middle + 20 :]


# Workbooks and columns


@defect()
def empty_cell_of_a_workbook(draw, folder):
    made = workbook(draw, folder, lambda sheet, row: sheet.__setitem__(f"B{row}", draw.choice((None, "", " "))))
    return made._replace(place=made.place.replace("!B", "!A"))


@defect()
def formula_without_a_value(draw, folder):
    return workbook(draw, folder, lambda sheet, row: sheet.__setitem__(f"B{row}", '=A1&"x"'))


@defect()
def error_in_a_cell(draw, folder):
    return workbook(draw, folder, lambda sheet, row: sheet.__setitem__(f"B{row}", draw.choice(("#N/A", "#REF!"))))


@defect()
def header_of_merged_cells(draw, folder):
    return workbook(draw, folder, lambda sheet, row: sheet.merge_cells("A1:B1"))._replace(place="a.xlsx!Sheet")


@defect(BY_CHECK, convert=0, train=0)
def question_merged_with_its_answer(draw, folder):
    made = workbook(draw, folder, lambda sheet, row: sheet.merge_cells(f"A{row}:B{row}"))
    return made._replace(place=made.place.replace("!B", "!A"))


@defect()
def several_sheets(draw, folder):
    return workbook(draw, folder, lambda sheet, row: sheet.parent.create_sheet("more"))._replace(place="a.xlsx:")


@defect()
def damaged_workbook(draw, folder):
    made = workbook(draw, folder, lambda sheet, row: None)
    return put(folder, "a.xlsx", damaged(draw, made.path.read_bytes()))


@defect()
def damaged_legacy_workbook(draw, folder):
    data = (Path(__file__).parent / "files" / "drugs.xls").read_bytes()
    return put(folder, "a.xls", data[: draw.randrange(8, len(data) // 2)])


@defect()
def workbook_with_a_password(draw, folder):
    ole = bytes.fromhex("d0cf11e0a1b11ae1") + "EncryptedPackage".encode("utf-16-le")
    return put(folder, "a.xlsx", ole + draw.randbytes(4096))


def _columns(draw: random.Random, folder: Path, change: Callable[[list[dict[str, Any]], int], None]) -> Defective:
    import pyarrow as pa
    import pyarrow.parquet

    values, bad = rows(draw)
    change(values, bad)
    pa.parquet.write_table(pa.Table.from_pylist(values), folder / "a.parquet")
    return Defective(folder / "a.parquet", f"a.parquet[{bad}]")


@defect()
def damaged_parquet(draw, folder):
    made = _columns(draw, folder, lambda values, bad: None)
    data = made.path.read_bytes()
    return put(folder, "a.parquet", data[: draw.randrange(8, len(data) - 8)])


@defect()
def null_in_parquet(draw, folder):
    return _columns(draw, folder, lambda values, bad: values[bad].update(answer=None))


@defect()
def numbers_in_parquet(draw, folder):
    made = _columns(
        draw, folder, lambda values, bad: [row.update(answer=draw.choice((float("nan"), 1.5))) for row in values]
    )
    return made._replace(place="a.parquet[0]")


# Compressed files and archives


@defect()
def gz_cut_short(draw, folder):
    data = gzip.compress(b"".join(text_of(draw) for _ in range(40)))
    return put(folder, "a.jsonl.gz", data[: draw.randrange(12, len(data) - 1)])


@defect()
def gz_with_a_wrong_checksum(draw, folder):
    data = bytearray(gzip.compress(text_of(draw)))
    data[-draw.randint(1, 8)] ^= 0x55
    return put(folder, "a.jsonl.gz", bytes(data))


@defect()
def gz_bomb(draw, folder):
    blank = b'{"question": "' + b"a" * (80 << 20)
    return put(folder, "a.jsonl.gz", gzip.compress(blank, 1))


def archive(folder: Path, members: dict[str, bytes]) -> Defective:
    """A zip of these members."""
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in members.items():
            packed.writestr(name, data)
    return Defective(folder / "a.zip", "a.zip")


@defect()
def zip_bomb(draw, folder):
    return archive(folder, {JSONL: text_of(draw), "b.jsonl": b"\n" * (100 << 20)})


@defect()
def damaged_zip(draw, folder):
    data = archive(folder, {JSONL: text_of(draw), "b.jsonl": text_of(draw)}).path.read_bytes()
    return put(folder, "a.zip", data[: draw.randrange(8, len(data) - 23)])


@defect()
def zip_that_leads_outside(draw, folder):
    return archive(
        folder, {JSONL: text_of(draw), draw.choice(("../b.jsonl", "/tmp/b.jsonl", "x/../../b.jsonl")): b"{}"}
    )


@defect()
def zip_with_a_password(draw, folder):
    data = bytearray(archive(folder, {JSONL: text_of(draw)}).path.read_bytes())
    data[6] |= 1  # the flag in the member's header, and in the directory
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    return put(folder, "a.zip", bytes(data))


@defect()
def archive_in_an_archive_in_an_archive(draw, folder):
    name, data = JSONL, text_of(draw)
    for outer in ("b.zip", "c.zip", "d.zip"):
        name, data = outer, archive(folder, {name: data}).path.read_bytes()
    return put(folder, "a.zip", data)


@defect()
def archive_without_data(draw, folder):
    return archive(folder, {"README.txt": b"nothing", draw.choice(("a.py", "a.png", "model.safetensors")): b"x" * 100})


@defect()
def tar_with_a_link(draw, folder):
    with tarfile.open(folder / "a.tar", "w") as packed:
        packed.add(write_lines(folder, text_of(draw).decode().splitlines()), JSONL)
        link = tarfile.TarInfo("b.jsonl")
        link.type, link.linkname = draw.choice((tarfile.SYMTYPE, tarfile.LNKTYPE)), "/etc/hostname"
        packed.addfile(link)
    return Defective(folder / "a.tar", "a.tar")


@defect()
def tar_with_a_device(draw, folder):
    with tarfile.open(folder / "a.tar.gz", "w:gz") as packed:
        device = tarfile.TarInfo("a.jsonl")
        device.type = draw.choice((tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE))
        packed.addfile(device)
    return Defective(folder / "a.tar.gz", "a.tar.gz")


# Folders, links, and what is no data at all


@defect()
def link_out_of_a_folder(draw, folder):
    write_lines(folder, text_of(draw).decode().splitlines())
    (folder / "data").mkdir()
    (folder / "data" / "good.jsonl").write_bytes(text_of(draw))
    (folder / "data" / "link.jsonl").symlink_to(draw.choice((folder / JSONL, Path("../a.jsonl"))))
    return Defective(folder / "data", "link.jsonl:")


@defect()
def link_to_nothing(draw, folder):
    path = folder / JSONL
    path.symlink_to(draw.choice(("nowhere.jsonl", JSONL)))
    return Defective(path, JSONL)


@defect()
def pipe_or_device(draw, folder):
    if draw.random() < 0.5:
        return Defective(Path(draw.choice(("/dev/zero", "/dev/null", "/dev/urandom"))), "/dev/")
    os.mkfifo(folder / JSONL)
    return Defective(folder / JSONL, JSONL)


@defect()
def folder_without_data(draw, folder):
    (folder / "data").mkdir()
    (folder / "data" / draw.choice(("README.md", "notes.docx", ".a.jsonl"))).write_text(CANARY)
    return Defective(folder / "data", "data:")


@defect()
def empty_file(draw, folder):
    name = draw.choice(("a.jsonl", "a.json", "a.csv", "a.txt", "a.xlsx", "a.parquet", "a.zip", "a.jsonl.gz"))
    return put(folder, name, draw.choice((b"", b"\n\n", b" " * 50, b"\xef\xbb\xbf")))


@defect()
def empty_values(draw, folder):
    return put(folder, "a.json", draw.choice((b"[]", b"{}", b"null", b'{"data": []}', b"[[]]")))._replace(place="")


@defect()
def pointer_of_git_lfs(draw, folder):
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{draw.randbytes(32).hex()}\nsize 12345\n"
    return put(folder, draw.choice(("a.jsonl", "a.csv", "a.xlsx", "a.parquet", "a.txt")), pointer.encode())


@defect()
def web_page(draw, folder):
    page = f"<!DOCTYPE html>\n<html><body><h1>404: {CANARY}</h1></body></html>\n"
    return put(folder, draw.choice(("a.json", "a.jsonl", "a.xlsx", "a.zip", "a.parquet")), page.encode())


@defect()
def binary_file(draw, folder):
    magic = draw.choice(
        (b"\x89PNG\r\n\x1a\n", b"%PDF-1.7\n", b"\x80\x04\x95", b"\x7fELF", b"\xff\xd8\xff\xe0", b"SQLite format 3\0")
    )
    return put(folder, draw.choice(("a.json", "a.jsonl", "a.csv", "a.txt")), magic + draw.randbytes(2000))


@defect()
def xml_of_no_known_kind(draw, folder):
    bomb = "".join(f'<!ENTITY x{i} "{f"&x{i - 1};" * 10}">' for i in range(1, 9))
    bomb = f"<!DOCTYPE a [<!ENTITY x0 '{CANARY}'>{bomb}]><a>&x8;</a>"
    page = "<?xml version='1.0'?>" + draw.choice((bomb, f"<a><b>{CANARY}</b></a>", f"<a>{CANARY}<b></a>"))
    return put(folder, "a.xml", page.encode())


@defect()
def registry_of_data_sets(draw, folder):
    value = {f"set{i}": {"file_name": f"{i}.json"} for i in range(draw.randint(1, 5))}
    return put(folder, "a.json", json.dumps(value).encode())


# Sound files, none of which is to raise an alarm


def clean_files(folder: Path) -> dict[Path, tuple[str, ...]]:
    """Twenty sound files -> the options that read them."""
    values = [pair(number) for number in range(12)]
    texts = {
        "lines.jsonl": "\n".join(lines_of(values)),
        "array.json": json.dumps(values, indent=2),
        "array.jsonl": json.dumps(values),
        "crlf.jsonl": "\r\n".join(lines_of(values)) + "\r\n",
        "blank_lines.jsonl": "\n\n".join(lines_of(values)) + "\n\n",
        "lines.txt": "\n".join(lines_of(values)),
        "keyed.json": json.dumps({str(number): value for number, value in enumerate(values)}),
        "wrapped.json": json.dumps({"version": "1", "data": values}),
        "messages.jsonl": "\n".join(lines_of([{"messages": messages_of(value)} for value in values])),
        "conversation.jsonl": "\n".join(lines_of([{"conversation": [_turn(value)]} for value in values])),
        "table.csv": _table(values, ","),
        "table.tsv": _table(values, "\t"),
        "german.csv": _table(values, ";"),
        "no_header.csv": _table(values, ",").partition("\n")[2],
        "documents.txt": "\n".join(value["answer"] for value in values),
        "chinese.jsonl": "\n".join(lines_of([_chinese(number) for number in range(12)])),
        "symbols.jsonl": "\n".join(lines_of([_symbols(number) for number in range(12)])),
    }  # fmt: skip
    made: dict[Path, tuple[str, ...]] = {}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
        letters = ("--input-column", "A", "--output-column", "B") if name == "no_header.csv" else ()
        made[folder / name] = ("--to", "text") if name == "documents.txt" else letters
    chinese = texts["chinese.jsonl"].encode("gb18030")
    packed = {
        "gb18030.jsonl": chinese,
        "marked.jsonl": texts["chinese.jsonl"].encode("utf-16"),
        "lines.jsonl.gz": gzip.compress(chinese),
    }
    for name, data in packed.items():
        (folder / name).write_bytes(data)
        made[folder / name] = ()
    return made


def _turn(value: dict[str, Any]) -> dict[str, str]:
    return {"system": "", "input": value["question"], "output": value["answer"]}


def _table(values: list[dict[str, Any]], delimiter: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\n").writerows(
        [["question", "answer"], *(list(v.values()) for v in values)]
    )
    return buffer.getvalue()


def _chinese(number: int) -> dict[str, str]:
    return {
        "instruction": f"发热第{number + 1}天怎么办？",
        "input": "",
        "output": f"多喝水，注意休息，体温超过38.5℃时就医，{number}小时后复查。",
    }


def _symbols(number: int) -> dict[str, str]:
    answer = f"Give 5 µg/kg ± 10 %, “slowly”; café and naïve: x < {number} && y > 2, [1] {{a}}, 🩺 α-β, №{number}, NaN."
    return {"question": f"Dose {number} for José Müller\tat 38–39 °C?", "answer": answer}
