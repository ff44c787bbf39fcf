"""Fake identifiers of patients, data that holds them, and the search for them in what a run leaves behind."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

WINDOW = 8  # bytes; every identifier has more
SURNAMES = "欧阳 司马 上官 诸葛 慕容 尉迟 公孙 令狐 宇文 长孙"
GIVEN = "砚秋 疏桐 予安 知微 若棠 景澄 念慈 望舒 听澜 怀瑾 清越 云岫"
LATIN = "Quillworth Zebrowski Vandermeer Oyelaran Brzezinski Achterberg Mbeki Thornquist Ugartechea Wojciech"


def identifiers(count: int = 1000, seed: int = 0) -> list[str]:
    """Names, ID numbers, phones and record numbers in equal parts; none is a part of another."""
    rng = random.Random(seed)
    makers = [
        lambda: f"{rng.choice(SURNAMES.split())}{rng.choice(GIVEN.split())}{rng.choice(GIVEN.split())}",
        lambda: f"{rng.choice(LATIN.split())}-{rng.choice(LATIN.split())} {rng.randrange(10**4):04d}",
        lambda: f"{rng.randrange(110000, 659999)}19{rng.randrange(10**10):010d}",
        lambda: f"1{rng.choice('3578')}{rng.randrange(10**9):09d}",
        lambda: f"MRN-{rng.randrange(10**8):08d}",
    ]
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(makers[len(found) % len(makers)]())
    return list(found)


def rows(names: list[str], number: int) -> list[dict[str, str]]:
    """Questions and answers that hold all the identifiers, several in each."""
    size = -(-len(names) // number)
    parts = [names[i * size : (i + 1) * size] for i in range(number)]
    return [
        {"question": f"{', '.join(part[::2])}: which dose?", "answer": f"{', '.join(part[1::2])}: 5 mg."}
        for part in parts
    ]


def write_jsonl(file: Path, content: Iterable[Any]) -> Path:
    """One value a line; a text is written as it is."""
    lines = (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in content)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def found_in_text(names: list[str], text: str | bytes) -> list[str]:
    """The identifiers that a text holds, as they are or as JSON and Python escape them."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    forms = {name: {name.encode(), name.encode("unicode_escape")} for name in names}
    if not _may_hold(data, {form[:WINDOW] for kinds in forms.values() for form in kinds}):
        return []
    return [name for name, kinds in forms.items() if any(kind in data for kind in kinds)]


def _may_hold(data: bytes, beginnings: set[bytes]) -> bool:
    """Whether any of these 8-byte beginnings is in the data: megabytes in a tenth of a second."""
    wanted = np.array([int.from_bytes(beginning, "little") for beginning in beginnings], dtype="<u8")
    parts = (data[shift : shift + (len(data) - shift) // WINDOW * WINDOW] for shift in range(WINDOW))
    return any(np.isin(np.frombuffer(part, dtype="<u8"), wanted).any() for part in parts)


def found_in_folder(names: list[str], *folders: Path) -> dict[str, list[str]]:
    """Files below folders whose name or content holds an identifier, whatever their type."""
    found = {}
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            content = file.read_bytes() if file.is_file() else b""
            if held := found_in_text(names, str(file).encode() + content):
                found[str(file.relative_to(folder))] = held
    return found
