"""Data files with one defect each, drawn by seed: broken JSON, encodings, tables.

Rows are in `defective_rows`, other containers in `defective_containers`.

Every text of a row holds `CANARY`, so that a search tells a message that quotes a row.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

CANARY = "Quexalotl"
CODES = {"check": 2, "convert": 2, "train": 2}


class Defective(NamedTuple):
    """A file with a defect."""

    path: Path
    place: str
    """What a message must hold: "a.jsonl:3", or the file's name where no row can be named."""
    to: str = "conversation"
    """The shape to convert to."""
    words: tuple[str, ...] = ()
    """Options that say how to read it."""


class DefectClass(NamedTuple):
    """A kind of defect."""

    name: str
    make: Callable[[random.Random, Path], Defective]
    codes: dict[str, int]
    """Command -> its exit code; a command that is not here is not run on such files."""
    why: str
    """Why a command takes such a file; "" where none does."""


CLASSES: dict[str, DefectClass] = {}
Maker = Callable[[random.Random, Path], Defective]


def defect(why: str = "", **codes: int | None) -> Callable[[Maker], Maker]:
    """Enter a maker into `CLASSES`. Codes are those that are not 2; None leaves the command out."""

    def enter(make: Maker) -> Maker:
        name = make.__name__
        wanted = {command: code for command, code in {**CODES, **codes}.items() if code is not None}
        CLASSES[name] = DefectClass(name, make, wanted, why)
        return make

    return enter


BY_CHECK = "the row can be trained on; `data check` is what refuses it"


def pair(number: int) -> dict[str, Any]:
    """A sound row."""
    return {
        "question": f"What does {CANARY} help against, case {number}?",
        "answer": f"Rest, water and {CANARY}, for {number + 2} days.",
    }


def rows(draw: random.Random) -> tuple[list[dict[str, Any]], int]:
    """A few sound rows, and which of them gets the defect; never the first, which tells the format."""
    count = draw.randint(4, 30)
    return [pair(number) for number in range(count)], draw.randrange(1, count)


def messages_of(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The row as OpenAI's messages."""
    return [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]


def lines_of(values: list[Any]) -> list[str]:
    """JSON, one a line."""
    return [json.dumps(value, ensure_ascii=False) for value in values]


def write_lines(folder: Path, lines: list[str]) -> Path:
    """The lines as a.jsonl."""
    path = folder / "a.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def save(draw: random.Random, folder: Path, values: list[Any], bad: int) -> tuple[Path, str]:
    """Write rows as JSON lines or an array; the file, and the place of one of them."""
    if draw.random() < 0.5:
        return write_lines(folder, lines_of(values)), f"a.jsonl:{bad + 1}"
    path = folder / "a.json"
    path.write_text(json.dumps(values, ensure_ascii=False, indent=draw.choice((None, 1))), encoding="utf-8")
    return path, f"a.json[{bad}]"


def with_row(
    draw: random.Random, folder: Path, change: Callable[[dict[str, Any]], Any], to: str = "conversation"
) -> Any:
    """Pairs of which one is changed."""
    values, bad = rows(draw)
    values[bad] = change(values[bad])
    return Defective(*save(draw, folder, values, bad), to)


def with_line(draw: random.Random, folder: Path, change: Callable[[str], str]) -> Defective:
    """JSON lines of which one is changed as text."""
    values, bad = rows(draw)
    lines = lines_of(values)
    lines[bad] = change(lines[bad])
    return Defective(write_lines(folder, lines), f"a.jsonl:{bad + 1}")


def with_bytes(draw: random.Random, folder: Path, insert: bytes) -> Defective:
    """JSON lines of which one has these bytes in its answer."""
    values, bad = rows(draw)
    lines = [line.encode() for line in lines_of(values)]
    lines[bad] = lines[bad].replace(b"Rest", b"Rest" + insert)
    path = folder / "a.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return Defective(path, f"a.jsonl:{bad + 1}")


def with_messages(draw: random.Random, folder: Path, change: Callable[[list[Any]], Any]) -> Defective:
    """Dialogues of which one has changed messages."""
    values, bad = rows(draw)
    shaped = [{"messages": messages_of(value)} for value in values]
    shaped[bad]["messages"] = change(shaped[bad]["messages"])
    return Defective(*save(draw, folder, shaped, bad))


def with_table(draw: random.Random, folder: Path, change: Callable[[list[list[str]], int], None]) -> Defective:
    """A csv or tsv file whose cells are changed; the line of the changed row is told."""
    values, bad = rows(draw)
    grid = [["question", "answer"], *([*value.values()] for value in values)]
    change(grid, bad + 1)
    suffix, delimiter = draw.choice(((".csv", ","), (".tsv", "\t"), (".csv", ";")))
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=draw.choice(("\n", "\r\n"))).writerows(grid)
    path = folder / f"a{suffix}"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    return Defective(path, f"a{suffix}:{bad + 2}")


# JSON that is broken


@defect()
def line_cut_short(draw, folder):
    values, _ = rows(draw)
    lines = lines_of(values)
    lines[-1] = lines[-1][: draw.randrange(20, len(lines[-1]) - 1)]
    path = folder / "a.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return Defective(path, f"a.jsonl:{len(lines)}")


@defect()
def array_cut_short(draw, folder):
    text = json.dumps(rows(draw)[0], ensure_ascii=False, indent=draw.choice((None, 1)))
    path = folder / draw.choice(("a.json", "a.jsonl"))
    path.write_text(text[: draw.randrange(len(text) // 2, len(text) - 1)], encoding="utf-8")
    return Defective(path, f"{path.name}:")


@defect()
def trailing_comma(draw, folder):
    return with_line(draw, folder, lambda line: draw.choice((line[:-1] + ",}", line + ",")))


@defect()
def missing_comma_in_an_array(draw, folder):
    values, bad = rows(draw)
    lines = [line + "," for line in lines_of(values)]
    lines[bad - 1] = lines[bad - 1][:-1]
    path = folder / "a.json"
    path.write_text("[" + "\n".join(lines)[:-1] + "]", encoding="utf-8")
    return Defective(path, f"a.json:{bad + 1}")


@defect()
def nan_literal(draw, folder):
    word = draw.choice(("NaN", "Infinity", "-Infinity"))
    return with_line(draw, folder, lambda line: line[:-1] + f', "score": {word}}}')


@defect()
def duplicate_key(draw, folder):
    return with_line(draw, folder, lambda line: line[:-1] + f', "answer": "{CANARY}"}}')


@defect()
def python_quotes(draw, folder):
    return with_line(draw, folder, lambda line: str(json.loads(line)))


@defect()
def line_break_in_a_string(draw, folder):
    return with_line(draw, folder, lambda line: line.replace("water", draw.choice(("water\n", "wat\r\ner"))))


@defect()
def half_a_surrogate(draw, folder):
    return with_line(draw, folder, lambda line: line.replace("Rest", draw.choice((r"\ud800", r"\uDC12", r"\ud83dx"))))


@defect()
def raw_control_character_in_json(draw, folder):
    return with_line(draw, folder, lambda line: line.replace("Rest", f"R{chr(draw.randrange(1, 9))}est"))


@defect()
def nested_too_deep(draw, folder):
    depth = draw.choice((2_000, 100_000, 1_000_000))
    opened, closed = draw.choice(("[]", ('{"a":', "}")))
    return with_line(draw, folder, lambda _: '{"question": ' + opened * depth + "1" + closed * depth + "}")


@defect()
def text_after_the_json(draw, folder):
    values, _ = rows(draw)
    path = folder / "a.json"
    path.write_text(json.dumps(values, indent=1) + f"\n{CANARY}", encoding="utf-8")
    return Defective(path, "a.json:")


# Encodings


@defect()
def byte_of_latin_1(draw, folder):
    return with_bytes(draw, folder, draw.choice((b" caf\xe9 ", b" 5\xb5g ", b" \xa3 ", b"\xff")))


@defect()
def gbk_bytes_inside_utf_8(draw, folder):
    return with_bytes(draw, folder, "体温升高，多喝水".encode("gbk") + "热".encode())


@defect()
def utf_16_without_a_mark(draw, folder):
    path = folder / "a.jsonl"
    path.write_bytes("\n".join(lines_of(rows(draw)[0])).encode(draw.choice(("utf-16-le", "utf-16-be"))))
    return Defective(path, "a.jsonl:")


@defect()
def utf_16_cut_in_a_character(draw, folder):
    path = folder / "a.jsonl"
    path.write_bytes("\n".join(lines_of(rows(draw)[0])).encode("utf-16")[: -draw.choice((1, 3))])
    return Defective(path, "a.jsonl:")


@defect()
def another_asian_encoding(draw, folder):
    codec, text = draw.choice(
        (("shift_jis", "熱がありますので休んでください"), ("euc_kr", "열이 나면 쉬세요"), ("big5", "發燒請多喝開水"))
    )
    path = folder / "a.jsonl"
    path.write_bytes("\n".join(line.replace("Rest", text) for line in lines_of(rows(draw)[0])).encode(codec))
    return Defective(path, "a.jsonl:1")


@defect()
def zero_bytes(draw, folder):
    return with_bytes(draw, folder, b"\0" * draw.randint(1, 50))


# Tables


@defect()
def quote_that_does_not_close(draw, folder):
    made = with_table(draw, folder, lambda grid, bad: None)
    lines = made.path.read_text(encoding="utf-8").splitlines()
    lines[-1] = '"' + lines[-1]
    made.path.write_text("\n".join(lines), encoding="utf-8")
    return Defective(made.path, f"{made.path.name}:{len(lines)}")


@defect()
def row_wider_than_the_header(draw, folder):
    return with_table(draw, folder, lambda grid, bad: grid[bad].extend([CANARY] * draw.randint(1, 3)))


@defect()
def header_with_a_name_twice(draw, folder):
    made = with_table(
        draw, folder, lambda grid, bad: [row.append("x") or grid[0].__setitem__(-1, "answer") for row in grid]
    )
    return Defective(made.path, f"{made.path.name}:")


@defect()
def header_alone(draw, folder):
    made = with_table(draw, folder, lambda grid, bad: grid.__delitem__(slice(1, None)))
    return Defective(made.path, "")


@defect()
def empty_cell(draw, folder):
    return with_table(draw, folder, lambda grid, bad: grid[bad].__setitem__(1, draw.choice(("", " ", "\u3000"))))


@defect()
def nan_cell(draw, folder):
    return with_table(draw, folder, lambda grid, bad: grid[bad].__setitem__(1, draw.choice(("nan", "NaN"))))


@defect(BY_CHECK, convert=0, train=0)
def control_character_in_a_cell(draw, folder):
    return with_table(draw, folder, lambda grid, bad: grid[bad].__setitem__(1, f"Rest\x07{CANARY}"))


@defect()
def column_that_is_not_there(draw, folder):
    made = with_table(draw, folder, lambda grid, bad: None)
    return made._replace(place=f"{made.path.name}:", words=("--input-column", "ask", "--output-column", "answer"))
