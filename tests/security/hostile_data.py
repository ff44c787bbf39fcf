"""Hostile data files, and what may be typed as a config, a path or a setting."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hostile import CANARY, World, artefact
from hostile_files import ESCAPES, Calls, python, shell

GOOD = '{"input": "What is ibuprofen?", "output": "A painkiller."}\n'
SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{}</sheetData></worksheet>'
)
CELLS = (
    '<row r="1"><c r="A1" t="inlineStr"><is><t>{}</t></is></c><c r="B1" t="inlineStr"><is><t>output</t></is></c></row>'
)


def data_file(name: str, file: str, content: str | bytes | Callable[[World], str | bytes], fast: bool = False) -> None:
    """One data file of this name and content."""

    def make(world: World, folder: Path) -> Path:
        text = content(world) if callable(content) else content
        (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder / file

    make.__name__ = name
    artefact("data", fast)(make)


data_file("json_deep", "x.json", "[" * 200_000, fast=True)
data_file("json_deep_in_a_row", "x.jsonl", GOOD + '{"input": ' + "[" * 200_000)
data_file("json_deep_and_closed", "x.json", '[{"conversation": ' + "[" * 900 + "]" * 900 + "}]")
data_file("json_giant_number", "x.jsonl", '{"input": ' + "9" * 100_000 + ', "output": "b"}\n')
data_file("json_escapes", "x.jsonl", json.dumps({ESCAPES: "a", "other": ESCAPES}) + "\n", fast=True)
data_file("json_escapes_inside", "x.jsonl", json.dumps({"input": ESCAPES, "output": ESCAPES}) + "\n", fast=True)
data_file(
    "json_expression",
    "x.jsonl",
    lambda w: json.dumps({"input": f"__import__('os').system({shell(w)!r})", "output": python(w)}),
)
data_file("json_surrogates", "x.jsonl", '{"input": "\\ud800", "output": "\\udfff"}\n')
data_file("json_constants", "x.jsonl", '{"input": NaN, "output": Infinity}\n')
data_file("csv_formula", "x.csv", 'input,output\n=cmd|\'/C calc\'!A0,"=HYPERLINK(""http://127.0.0.1"")"\n', fast=True)
data_file("csv_one_giant_cell", "x.csv", b'input,output\n"' + b"a" * 30_000_000)
data_file("csv_binary", "x.csv", bytes(range(256)) * 100)
data_file("yaml_tags", "x.yaml", lambda w: f"!!python/object/apply:os.system ['{shell(w)}']\n")
data_file("pickle_file", "x.pkl", lambda w: pickle.dumps(Calls(os.system, shell(w))))
data_file("pickle_named_parquet", "x.parquet", lambda w: pickle.dumps(Calls(os.system, shell(w))), fast=True)
data_file("parquet_lies", "x.parquet", b"PAR1" + b"\xff" * 400 + (300).to_bytes(4, "little") + b"PAR1")
data_file("pickle_named_arrow", "x.arrow", lambda w: pickle.dumps(Calls(os.system, shell(w))))
data_file("arrow_cut", "x.arrow", b"ARROW1\0\0" + b"\xff" * 100)
data_file("gzip_bomb", "x.jsonl.gz", gzip.compress(bytes(50_000_000)))
data_file("numpy_objects", "x.npy", lambda w: npy(w))
data_file("python_script", "x.py", python)
data_file("xlsx_garbage", "x.xlsx", b"PK\x03\x04" + bytes(200))
data_file("shell_characters", "; touch x; $(touch y) `id` & | > 'z'.jsonl", GOOD, fast=True)
data_file("option_like_name", "-rf.jsonl", GOOD)
data_file("newline_in_name", "a\nb\x1b[31m.jsonl", '{"input": 1}\n', fast=True)


def npy(world: World) -> bytes:
    file = world.root / "object.npy"
    np.save(file, np.array([Calls(os.system, shell(world))], dtype=object), allow_pickle=True)
    return file.read_bytes()


# ---------------------------------------------------------------- xlsx


def xlsx(name: str, change: Callable[[World, dict[str, Any]], None], fast: bool = False) -> None:
    """A workbook whose parts `change` has spoilt."""

    def make(world: World, folder: Path) -> Path:
        from openpyxl import Workbook

        book = Workbook()
        book.active.append(["input", "output"])
        book.active.append(["a", "b"])
        book.save(folder / "good.xlsx")
        with zipfile.ZipFile(folder / "good.xlsx") as archive:
            parts: dict[str, Any] = {part: archive.read(part) for part in archive.namelist()}
        change(world, parts)
        with zipfile.ZipFile(folder / "x.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
            for part, content in parts.items():
                archive.writestr(part, content)
        return folder / "x.xlsx"

    make.__name__ = name
    artefact("data", fast)(make)


SHEET1 = "xl/worksheets/sheet1.xml"
LAUGHS = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "lol"}">' for i in range(10))


def _sheet(text: str) -> Callable[[World, dict[str, Any]], None]:
    return lambda world, parts: parts.update({SHEET1: text})


xlsx("xlsx_billion_laughs", _sheet(f"<!DOCTYPE x [{LAUGHS}]>" + SHEET.format(CELLS.format("&a9;"))), fast=True)
xlsx(
    "xlsx_outside_entity",
    _sheet('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + SHEET.format(CELLS.format("&e;"))),
)
xlsx("xlsx_cut_xml", _sheet(SHEET[:60]), fast=True)
xlsx("xlsx_deep_xml", _sheet(SHEET.format("<row>" * 200_000)))
xlsx("xlsx_zip_slip", lambda w, p: p.update({f"../../{CANARY}/slipped": b"x"}))
xlsx("xlsx_no_workbook", lambda w, p: p.pop("xl/workbook.xml"))
xlsx(
    "xlsx_sheet_outside",
    lambda w, p: p.update(
        {
            "xl/_rels/workbook.xml.rels": p["xl/_rels/workbook.xml.rels"].replace(
                b"worksheets/sheet1.xml", b"../../../../etc/passwd"
            )
        }
    ),
)
xlsx("xlsx_row_number", _sheet(SHEET.format('<row r="99999999999"><c r="ZZZZZZ9"><v>1</v></c></row>')))
xlsx("xlsx_bad_index", _sheet(SHEET.format('<row r="1"><c r="A1" t="s"><v>999999</v></c></row>')))
xlsx(
    "xlsx_escapes",
    lambda w, p: p.update(
        {"xl/workbook.xml": p["xl/workbook.xml"].replace(b'name="Sheet"', 'name="a\x9b31m"'.encode())}
    ),
)
xlsx("xlsx_zip_bomb", _sheet(SHEET.format(CELLS.format(" " * 300_000_000))), fast=True)
xlsx("xlsx_strings_bomb", lambda w, p: p.update({"xl/sharedStrings.xml": b"<sst><si><t>" + b" " * 400_000_000}))


# ---------------------------------------------------------------- folders and names


@artefact("data")
def folder_loops(world: World, folder: Path) -> Path:
    target = folder / "set"
    target.mkdir()
    (target / "train.jsonl").write_text(GOOD * 8)
    (target / "again").symlink_to(target)
    return target


@artefact("data")
def folder_with_a_script(world: World, folder: Path) -> Path:
    target = folder / "set"
    target.mkdir()
    (target / "train.jsonl").write_text("".join(GOOD.replace("ibuprofen", f"drug {i}") for i in range(8)))
    (target / "set.py").write_text(python(world))
    return target


@artefact("data", fast=True)
def folder_of_datasets(world: World, folder: Path) -> Path:
    """What `Dataset.save_to_disk` writes, with a file name that leads out and a feature type that is none."""
    target = folder / "set"
    target.mkdir()
    files = [{"filename": "../../../../../etc/passwd"}]
    (target / "state.json").write_text(json.dumps({"_data_files": files, "_split": "train", "_format_type": "evil"}))
    features = {"a": {"_type": "os.system", "dtype": "x"}}
    (target / "dataset_info.json").write_text(json.dumps({"features": features, "builder_name": "evil"}))
    return target


@artefact("data")
def folder_of_datasets_deep(world: World, folder: Path) -> Path:
    target = folder / "set"
    target.mkdir()
    for name in ("state.json", "dataset_info.json"):
        (target / name).write_text("[" * 100_000)
    return target


def typed(kind: str, name: str, text: str | Callable[[World], str], fast: bool = False) -> None:
    """Something typed in place of a path or a setting."""

    def make(world: World, folder: Path) -> str:
        return text(world) if callable(text) else text

    make.__name__ = name
    artefact(kind, fast)(make)


typed("data", "hub_name", "evil/data-set")
typed("data", "address", "http://127.0.0.1:9/train.jsonl", fast=True)
typed("data", "address_of_a_bucket", "s3://bucket/train.jsonl")
typed("data", "address_of_a_file", "file:///etc/passwd")
typed("data", "device", "/dev/zero")
typed("config", "config_traversal", "../../../../../../etc/passwd", fast=True)
typed("config", "config_dotted", "os.system")
typed("config", "config_address", "http://127.0.0.1:9/config.py")
typed("config", "config_nul", "a\0b.py")
typed("override", "override_expression", lambda w: f"lr=__import__('os').system({shell(w)!r})", fast=True)
typed("override", "override_in_brackets", lambda w: f"evaluation_inputs=[__import__('os').system({shell(w)!r})]")
typed("override", "override_dotted_type", "model.type=os.system")
typed("override", "override_f_string", lambda w: 'betas=(f\'{__import__("os").system("id")}\', 1)')
typed("override", "override_ends_the_text", lambda w: f"data_path=x'; __import__('os').system({shell(w)!r}) #")
typed("override", "override_dunder", "model.llm.__class__=1")


def config_file(
    name: str, file: str, content: str | bytes | Callable[[World], str | bytes], fast: bool = False
) -> None:
    """A file given as CONFIG that is no Python config, and must not be run as anything else."""

    def make(world: World, folder: Path) -> Path:
        text = content(world) if callable(content) else content
        (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder / file

    make.__name__ = name
    artefact("config", fast)(make)


config_file("config_yaml", "x.yaml", lambda w: f"!!python/object/apply:os.system ['{shell(w)}']\n", fast=True)
config_file(
    "config_json", "x.json", '{"custom_imports": {"imports": ["medtune_canary"]}, "model": {"type": "os.system"}}'
)
config_file("config_no_suffix", "config", python)
config_file("config_binary", "x.py", bytes(range(256)))
config_file("config_bytecode", "x.pyc", lambda w: b"\xa7\r\r\n" + bytes(12) + python(w).encode())
config_file("config_syntax", "x.py", "lr = (\x1b[31m\n")
config_file("config_many_brackets", "x.py", "lr = " + "(" * 5000)
