"""Text as words: what duplicates, overlaps and languages are counted in.

A word is a run of letters and digits, after case and width are folded; a Chinese character or a kana, which are written
without spaces, is a word of its own.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from medtune.data.map_fns import NUM_HEAD_ROWS, MapFn, apply_map_fn, named_map_fn, resolve_map_fn
from medtune.data.records import Row, shown_names
from medtune.errors import DataError

HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3040-\u30ff"
HANGUL = "\uac00-\ud7af"
CYRILLIC = "\u0400-\u04ff"
ARABIC = "\u0600-\u06ff"

WORD = re.compile(rf"[{HAN}{KANA}]|[^\W_{HAN}{KANA}]+")
LATIN = re.compile(r"[A-Za-z\u00c0-\u024f]+")
SCRIPTS = {
    "zh": re.compile(f"[{HAN}]"),
    "ja": re.compile(f"[{KANA}]"),
    "ko": re.compile(f"[{HANGUL}]"),
    "ru": re.compile(f"[{CYRILLIC}]+"),
    "ar": re.compile(f"[{ARABIC}]+"),
}
# Small words that hardly a sentence goes without, of English and of its neighbours in the Latin script.
ENGLISH = re.compile(
    r"\b(?:the|of|and|to|is|are|what|for|how|with|this|that|which|it|be|you|my|can|by|from|not)\b", re.I
)
NEIGHBOURS = re.compile(
    r"\b(?:der|die|das|und|ist|nicht|ein|el|los|las|que|por|una|le|les|des|du|et|est|une|il|che|di|per|het|een|van|os|um"
    r"|não|och|att|på|ve|bir|jest|się|na|của|và|là)\b",
    re.I,
)
TRIED = 20
"""Rows that may tell the format: the first one may be broken."""
JAPANESE_SHARE = 0.1
NEIGHBOUR_SHARE = 0.05
ACCENTED_SHARE = 0.15


class Text(NamedTuple):
    """A row's text, for comparing: whole, and the question alone."""

    row: Row
    question: str
    whole: str


def words(text: str) -> list[str]:
    """Words of a text, folded (NFKC, case).

    >>> words("Is ASPIRIN（100mg）safe? 布洛芬。")
    ['is', 'aspirin', '100mg', 'safe', '布', '洛', '芬']
    """
    if text.isascii():
        return WORD.findall(text.lower())
    return WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def digest(text: str) -> bytes:
    """16 bytes that are the same for texts of the same words; of a text without words, for the same text."""
    folded = "\x1f".join(words(text)) or text.strip()
    return hashlib.blake2b(folded.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def language(text: str) -> str:
    """Language of a text by its script: zh, ja, ko, ru, ar; en or latin by small words; other, or none without letters.

    A text with more than two Chinese characters, about a word, to each Latin word is zh: drug names do not make it en.

    >>> [language(text) for text in ("布洛芬 (ibuprofen) 怎么吃？", "What is a fever?", "38.5", "熱があります")]
    ['zh', 'en', 'none', 'ja']
    """
    if text.isascii():
        return _latin(LATIN.findall(text), text)
    counts = {name: len(script.findall(text)) for name, script in SCRIPTS.items()}
    latin = LATIN.findall(text)
    if counts["ja"] > JAPANESE_SHARE * counts["zh"]:
        counts["ja"] += counts.pop("zh")
    best = max(counts, key=lambda name: counts[name])
    size = 2 if best in ("zh", "ja") else 1
    return best if counts[best] > size * len(latin) else _latin(latin, text)


def _latin(found: list[str], text: str) -> str:
    """English is the rule; another language shows by its small words, or by accents on many words."""
    if not found:
        return "other" if any(char.isalpha() for char in text) else "none"
    if sum(not word.isascii() for word in found) > ACCENTED_SHARE * len(found):
        return "latin"
    others = len(NEIGHBOURS.findall(text))
    return "latin" if others > max(NEIGHBOUR_SHARE * len(found), len(ENGLISH.findall(text))) else "en"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, text) of every text in a row's fields: ("history[1][0]", "Since when?").

    None is an empty text. A key that looks like data, as in a table without a header row, is given by its number:
    "column 3".
    """
    if value is None or isinstance(value, str):
        yield path, value or ""
    elif isinstance(value, Mapping):
        for number, (key, child) in enumerate(value.items(), 1):
            name = next(iter(shown_names([key])), f"column {number}")
            yield from leaves(child, f"{path}.{name}" if path else name)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        for index, child in enumerate(value):
            yield from leaves(child, f"{path}[{index}]")


def conversations_of(record: Any) -> tuple[Any, ...]:
    """A `Conversation` alone, or the two of a `Preference`, chosen first."""
    return tuple(record.conversations()) if hasattr(record, "conversations") else (record,)


def question_of(record: Any) -> str:
    """The user's first message; "" in a record without one, such as plain text."""
    return next((m.content for m in conversations_of(record)[0].messages if m.role == "user"), "")


def start(rows: Iterable[Row], map_fn: str | MapFn | None = None) -> tuple[MapFn | None, Iterator[Row]]:
    """Find the format of rows from the first that tells it, for whoever goes on where a format does not fit.

    Returns:
        The map function, None if no row at the beginning fits any format; and all the rows.

    Raises:
        DataError: there is no format of that name.
    """
    if map_fn is not None:
        map_fn = named_map_fn(map_fn)
    reader = iter(rows)
    head = list(islice(reader, NUM_HEAD_ROWS))
    for number in range(min(len(head), TRIED)):
        try:
            return resolve_map_fn(map_fn, *head[number:]), chain(head, reader)
        except DataError:
            continue
    return None, chain(head, reader)


def texts(rows: Iterable[Row], map_fn: str | MapFn | None = None) -> Iterator[Text]:
    """Yield the text of each row: of its messages, or, where no format fits the row, of all its fields.

    Args:
        rows: `Rows`, or any iterable of `Row`.
        map_fn: a format's name or a function; None detects it.

    Raises:
        DataError: a row cannot be read, or there is no format of that name.
    """
    chosen, reader = start(rows, map_fn)
    for row in reader:
        yield text_of(row, chosen)


def text_of(row: Row, map_fn: MapFn | None) -> Text:
    """Text of one row; see `texts`."""
    try:
        record = apply_map_fn(map_fn, row) if map_fn else None
    except DataError:
        record = None
    if record is None:
        whole = "\n".join(text for _, text in leaves(row.fields))
        return Text(row, whole, whole)
    messages = [message for conversation in conversations_of(record) for message in conversation.messages]
    whole = "\n".join(dict.fromkeys(m.content for m in messages if m.role != "system"))
    return Text(row, question_of(record) or whole, whole)
