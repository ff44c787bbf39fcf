"""Spans of a text that may name a person, and the one form of text that the recognisers read."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

KINDS = {
    "name": "names beside a title, a label or a signature",
    "resident_id": "Chinese resident ID, 18 digits with the GB 11643 check digit, or the old 15",
    "regional_id": "Hong Kong, Macau and Taiwan identity cards and travel permits",
    "ssn": "US social security number",
    "nhs_number": "NHS number",
    "passport": "passport number beside the word",
    "bank_card": "bank card number with the Luhn check digit",
    "record_number": "medical record, admission, outpatient and insurance number beside the word",
    "account": "QQ and WeChat account beside the word",
    "email": "e-mail address",
    "url": "web address of a person's page, or with a person in its query",
    "ip": "IPv4 address",
    "date": "date with a day; month and year beside a word such as admitted",
    "phone": "phone and fax number",
    "address": "street address, Chinese place down to the district, postcode beside the word",
    "age": "age over 89",
}
"""Every kind of span and what it is, the surer of two before the other."""

ORDER = {kind: place for place, kind in enumerate(["name", *[k for k in KINDS if k != "name"]][::-1])}

INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63"
FOLDED: dict[int, int | str] = {
    **{code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)},  # full-width ASCII
    **dict.fromkeys(map(ord, SPACES), " "),
    **dict.fromkeys(map(ord, DASHES), "-"),
}


class Span(NamedTuple):
    """Characters start to end (not included) of a text, and the kind of identifier they may be, one of `KINDS`."""

    kind: str
    start: int
    end: int


def fold(text: str) -> tuple[str, list[int] | None]:
    """Text without the tricks that hide a number: full-width characters, odd spaces and dashes, invisible characters.

    Returns:
        The folded text and, if characters were left out, where in `text` each of its characters stands; None if every
        character stands where it stood.
    """
    if not INVISIBLE.search(text):
        return text.translate(FOLDED), None
    places = [i for i, char in enumerate(text) if not INVISIBLE.match(char)]
    return "".join(text[i] for i in places).translate(FOLDED), places


def unfold(spans: Iterable[Span], places: list[int] | None) -> list[Span]:
    """Spans of a folded text as spans of the text itself."""
    if places is None:
        return list(spans)
    return [Span(kind, places[start], places[end - 1] + 1) for kind, start, end in spans]


def merge(spans: Iterable[Span]) -> list[Span]:
    """Sorted spans without overlaps: what two overlap becomes one that covers both, of the longer one's kind."""
    merged: list[Span] = []
    longest = 0  # length of the span that gave the last one its kind
    for span in sorted(spans, key=lambda span: (span.start, -span.end, ORDER[span.kind])):
        length = span.end - span.start
        if not merged or span.start >= merged[-1].end:
            merged.append(span)
            longest = length
            continue
        last = merged[-1]
        stronger = (length, -ORDER[span.kind]) > (longest, -ORDER[last.kind])
        longest = max(longest, length)
        merged[-1] = Span(span.kind if stronger else last.kind, last.start, max(last.end, span.end))
    return merged


def overlaps(spans: list[Span], start: int, end: int) -> bool:
    """Whether any of these sorted spans without overlaps shares a character with start to end."""
    place = bisect_left(spans, end, key=lambda span: span.start)
    return place > 0 and spans[place - 1].end > start
