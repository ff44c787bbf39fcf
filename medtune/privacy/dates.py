"""Recognise dates and ages over 89 in folded text, and read a date so that it can be written again, shifted."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator

from medtune.privacy.name_tables import listed
from medtune.privacy.spans import Span

MONTHS = listed("January February March April May June July August September October November December")
MONTH = "(?:" + "|".join(f"{name[:3]}(?:{name[3:]})?" for name in MONTHS) + r"|Sept)\b\.?"
CHINESE_DIGITS = "〇零○一二三四五六七八九十"
YEAR = "(?:18|19|20)[0-9]{2}"
ONE_TO_12 = "(?:0?[1-9]|1[0-2])"
ONE_TO_31 = "(?:0?[1-9]|[12][0-9]|3[01])"
ALONE = r"(?<![0-9A-Za-z])(?<![0-9][./-])"
ENDS = r"(?![0-9])(?![./-][0-9])"

EVENT = (
    "出生|生日|生于|入院|出院|住院|就诊|初诊|复诊|复查|随访|手术|术后|检查|检验|采样|报告|日期|时间|死亡|确诊"
    "|转院|住进|来院|来诊|发病|签名"
)
EVENT_WORDS = re.compile(
    rf"{EVENT}|\b(?:born|birth|dob|date|admi(?:t|ssion)|discharge|visit|seen|surgery|died|deceased|diagnosed"
    rf"|signed|on|since)",
    re.IGNORECASE,
)
NEAR = 12  # characters around a month or a short date in which one of those words makes it a date of a person

FULL_DATES = {
    "chinese": (
        re.compile(rf"{ALONE}({YEAR}) ?年 ?({ONE_TO_12}) ?月 ?({ONE_TO_31}) ?[日号]?(?![0-9])"),
        re.compile(
            "[一二][〇零○一二三四五六七八九]{3}年[一二三四五六七八九十]{1,2}月[一二三四五六七八九十]{1,3}[日号]"
        ),
        re.compile(rf"(?<![0-9年.])({ONE_TO_12}) ?月 ?({ONE_TO_31}) ?[日号](?!线)"),
    ),
    "english": (
        re.compile(
            rf"(?<![A-Za-z])({MONTH}) ?({ONE_TO_31})(?:st|nd|rd|th)?,? (?:of )?({YEAR})(?![0-9])", re.IGNORECASE
        ),
        re.compile(rf"{ALONE}({ONE_TO_31})(?:st|nd|rd|th)?[ -](?:of )?({MONTH}),?[ -]({YEAR})(?![0-9])", re.IGNORECASE),
    ),
    "digits": (
        re.compile(rf"{ALONE}({YEAR})([-/.])({ONE_TO_12})\2({ONE_TO_31})(?=T[0-9]|(?![0-9A-Za-z])(?![./-][0-9]))"),
        re.compile(rf"{ALONE}([0-3]?[0-9])([-/.])([0-3]?[0-9])\2({YEAR}){ENDS}"),
    ),
}
SHORT_DATES = {
    "chinese": (re.compile(rf"{ALONE}({YEAR}) ?年 ?({ONE_TO_12}) ?月(?! ?[0-9])"),),
    "english": (
        re.compile(rf"(?<![A-Za-z])({MONTH}),? (?:of )?({YEAR})(?![0-9])"),
        re.compile(
            rf"(?<![A-Za-z])({MONTH}) ({ONE_TO_31})(?:st|nd|rd|th)?(?![0-9A-Za-z%/.-])(?! ?[0-9]| ?(?:mg|ml|kg|g)\b)"
        ),
    ),
    "digits": (
        re.compile(rf"{ALONE}({YEAR})(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])(?![0-9A-Za-z.])"),
        re.compile(rf"{ALONE}([0-3]?[0-9])([/.-])([0-3]?[0-9])\2([0-9]{{2}}){ENDS}"),
    ),
}
AGE_WORDS = ("岁", "年龄", "year", "age", "y/o", "yo")
HAS_DATE = re.compile("[0-9]|[年岁]")
OLD_AGE = re.compile(
    r"(?<![0-9.-])((?:9[0-9]|1[01][0-9]|12[0-5])) ?(?:周?岁(?!以上|以下|及|或|至|到|-|~)|[ -]?years?[ -]old\b"
    r"|[ -]?y/?o\b|[ -]year[ -]old)"
    r"|(?:年龄|\bage[d:]?)[ \t]{0,2}[:=为]?[ \t]{0,2}((?:9[0-9]|1[01][0-9]|12[0-5]))(?![0-9.%])"
    r"(?! ?(?:hours|days|weeks|months)\b)"
    r"|(九十[一二三四五六七八九]?|一百(?:零?[一二三四五六七八九])?)周?岁(?!以上|以下|及|或|至|到)",
    re.IGNORECASE,
)


def find_dates(text: str) -> Iterator[Span]:
    """Yield dates and ages of 90 and more in a folded text; a bare year is neither."""
    if not HAS_DATE.search(text):
        return
    lower = text.lower()
    forms = ["digits"]
    forms += ["chinese"] if "月" in text else []
    forms += ["english"] if any(name[:3].lower() in lower for name in MONTHS) else []
    for pattern in (pattern for form in forms for pattern in FULL_DATES[form]):
        yield from (Span("date", *match.span()) for match in pattern.finditer(text) if read_date(match[0]))
    for pattern in (pattern for form in forms for pattern in SHORT_DATES[form]):
        for match in pattern.finditer(text):
            around = text[max(0, match.start() - NEAR) : match.end() + NEAR // 2]
            if EVENT_WORDS.search(around) and read_date(match[0]):
                yield Span("date", *match.span())
    if any(word in lower for word in AGE_WORDS):
        yield from (Span("age", *match.span(match.lastindex or 0)) for match in OLD_AGE.finditer(text))


PARTS = re.compile(rf"[0-9]+|{MONTH}|[{CHINESE_DIGITS}]+", re.IGNORECASE)
ORDINAL = re.compile("([0-9]+)(?:st|nd|rd|th)")
Writer = Callable[[datetime.date], str]


def read_date(text: str, year: int = 2000) -> tuple[datetime.date, Writer] | None:
    """Read a date in any form that `find_dates` knows; None if the calendar has no such day.

    A missing year is read as `year`, a missing day as the 15th. Of 05/06/2023 the first number is the month, unless it
    is over 12: which order was meant, nobody can tell, and a shift by days keeps the form valid either way.

    Returns:
        The day, and a function that writes another day in the same form.

    >>> day, write = read_date("2023年5月06日")
    >>> day.isoformat(), write(datetime.date(2022, 11, 7))
    ('2023-05-06', '2022年11月07日')
    """
    parts = [match.span() for match in PARTS.finditer(text)]
    if len(text) == 8 and text.isdigit():
        parts = [(0, 4), (4, 6), (6, 8)]
    words = [text[start:end] for start, end in parts]
    roles = _roles(words)
    if not roles:
        return None
    numbers = {role: _number(word) for role, word in zip(roles, words, strict=False)}
    year = numbers.get("year", year)
    if year < 100:
        year += 2000 if year < 40 else 1900
    all_long = not any(len(word) == 1 for word in words) and words[0].isdigit() and text[parts[0][1]] not in "年月 "
    padded = all_long or any(word.startswith("0") for word in words)
    try:
        day = datetime.date(year, numbers["month"], numbers.get("day", 15))
    except (ValueError, KeyError):
        return None

    def write(other: datetime.date) -> str:
        pieces, end = "", 0
        for role, (start, stop) in zip(roles, parts, strict=False):
            pieces += text[end:start] + _like(text[start:stop], getattr(other, role), role, padded)
            end = stop
        return ORDINAL.sub(lambda match: match[1] + _ordinal(int(match[1])), pieces + text[end:])

    return day, write


def _ordinal(day: int) -> str:
    return "th" if day in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")


def _roles(words: list[str]) -> tuple[str, ...]:
    """Which of year, month and day each part of a date is."""
    if len(words) not in (2, 3):
        return ()
    if words[0][0].isalpha() and words[0][0].isascii():  # May 6, 2023; May 2023; May 6
        return ("month", "year") if len(words) == 2 and len(words[1]) == 4 else ("month", "day", "year")
    if words[1][0].isalpha() and words[1][0].isascii():
        return ("day", "month", "year")
    if len(words[0]) == 4:
        return ("year", "month", "day")
    if len(words) == 2 or int(words[0]) <= 12:
        return ("month", "day", "year")
    return ("day", "month", "year")


def _number(word: str) -> int:
    """Value of a part of a date: digits, the name of a month, or Chinese numerals."""
    if word[0].isdigit() and word.isascii():
        return int(word)
    if word.isascii():
        return next(i for i, name in enumerate(MONTHS, 1) if word[:3].lower() == name[:3].lower())
    values = [max(0, CHINESE_DIGITS.index(char) - 2) for char in word]
    if len(word) == 4:
        return int("".join(map(str, values)))
    if "十" not in word:
        return values[-1]
    before, _, after = word.partition("十")
    return 10 * (values[0] if before else 1) + (values[-1] if after else 0)


def _like(word: str, value: int, role: str, padded: bool) -> str:
    """Write a part of a date as `word` is written."""
    if word[0].isdigit() and word.isascii():
        return f"{value:0{len(word)}d}"[-len(word) :] if role == "year" else f"{value:02d}" if padded else str(value)
    if word.isascii():
        name = MONTHS[value - 1]
        dot = "." if word.endswith(".") else ""
        name = name if word.strip(".").lower() == MONTHS[_number(word) - 1].lower() else name[:3]
        return (name.upper() if word.isupper() else name) + dot
    if role == "year":
        return "".join("〇一二三四五六七八九"[int(digit)] for digit in f"{value:04d}")
    tens, ones = divmod(value, 10)
    figures = " 一二三四五六七八九"
    return (figures[tens] if tens > 1 else "") + ("十" if tens else "") + (figures[ones] if ones else "")
