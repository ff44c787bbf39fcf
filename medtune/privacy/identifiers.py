"""Find what may name a person in text, English and Chinese: patterns, check digits and the words beside.

It finds what has a form or a word beside it; what has neither it cannot find. See docs/privacy.md for the classes,
their measured recall and precision, and for what is out of reach.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache

from medtune.privacy.addresses import find_places
from medtune.privacy.dates import find_dates
from medtune.privacy.numbers import find_numbers
from medtune.privacy.people import find_names
from medtune.privacy.spans import KINDS, Span, fold, merge, unfold

__all__ = ["KINDS", "LABELS", "Span", "find", "label_of"]

LABELS = re.compile(
    "姓名|患者|病人|医[生师]|护士|联系|电话|手机|身份证|证件|护照|号|地址|住址|籍贯|出生|生日|日期|时间|年龄"
    "|邮编|微信|QQ"
    "|name|patient|doctor|physician|surgeon|provider|nurse|contact|phone|mobile|tel|fax|ssn|social|nhs"
    "|passport|mrn|record|account|card"
    "|policy|member|insurance|address|zip|postcode|date|dob|birth|admi|discharge|visit|age",
    re.IGNORECASE,
)
PERSONAL_KEYS = re.compile(
    "^(?:sex|gender|age|dob|birth|phone|mobile|mrn|patient|address|性别|年龄|电话|住院号|病历号|出生)", re.IGNORECASE
)

Finder = Callable[[str], Iterable[Span]]


@lru_cache(maxsize=4096)
def label_of(key: str, others: tuple[str, ...] = ()) -> str:
    """The words that a field's key puts before its value, "patient name: "; "" for a key that says nothing of a person.

    Args:
        key: the field's own.
        others: the keys beside it. A bare "name" is a person's only where one of these is, too, such as "age".

    >>> label_of("patient_name"), label_of("answer"), label_of("name"), label_of("name", ("name", "sex"))
    ('patient name: ', '', '', 'name: ')
    """
    words = re.sub("[_.-]+", " ", re.sub("(?<=[a-z])(?=[A-Z])", " ", key)).strip()
    if len(words) > 24 or not LABELS.search(words):
        return ""
    if words.lower() == "name" and not any(PERSONAL_KEYS.search(other) for other in others):
        return ""
    return f"{words}: "


def find(text: str, label: str = "", names: Iterable[str] = (), more: Finder | None = None) -> list[Span]:
    """Spans of a text that may name a person, sorted and without overlaps.

    Args:
        text: any text. Full-width digits, odd dashes and invisible characters hide nothing.
        label: what stands before it, such as `label_of(key)` of its field.
        names: full names known from elsewhere in the record; each place where one stands is a span.
        more: another finder to ask, such as `medtune.privacy.presidio`.
    """
    folded, places = fold(text)
    spans = list(_spans(label + folded, len(label)) if label else _spans(folded, 0))
    if more:
        spans += more(folded)
    found = [folded[start:end] for kind, start, end in spans if kind == "name"]
    spans += _repeated(folded, {*map(_plain, names), *found})
    return unfold(merge(spans), places)


def full_names(text: str, spans: Iterable[Span]) -> set[str]:
    """The names among spans that are long enough to be looked for elsewhere in the record."""
    return {name for kind, start, end in spans if kind == "name" and _is_full(name := _plain(text[start:end]))}


def _plain(text: str) -> str:
    return fold(text)[0]


def _is_full(name: str) -> bool:
    return len(name) >= 5 and " " in name if name.isascii() else len(name) >= 2


def _spans(text: str, shift: int) -> Iterator[Span]:
    for finder in (find_numbers, find_dates, find_places, find_names):
        for kind, start, end in finder(text):
            if end > shift:
                yield Span(kind, max(start - shift, 0), end - shift)


def _repeated(text: str, names: set[str]) -> Iterator[Span]:
    """Every place of names that are known; of an English name also where its last word stands alone."""
    for name in filter(_is_full, names):
        forms = [re.escape(name)]
        if name.isascii():
            words = re.findall(r"[A-Za-z][A-Za-z'’-]{2,}", name)
            forms = [rf"(?<![A-Za-z]){form}(?![A-Za-z])" for form in (*forms, *map(re.escape, words))]
        for form in forms:
            yield from (Span("name", *match.span()) for match in re.finditer(form, text))
