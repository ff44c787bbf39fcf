"""Put made-up values in the place of what may name a person, the same one for the same value, keyed by a secret.

A surrogate keeps the form of what it replaces, so that a model still learns how such a text reads, and is one that no
person has wherever such values exist: resident IDs of region 99 with a right check digit, mobiles that begin with 12,
555-01xx, example.com. Names and dates have no such values. Without the key nobody can compute a surrogate from a value,
but who knows the people may still recognise a record: this is no anonymisation.
"""

from __future__ import annotations

import datetime
import hmac
import re
import secrets
from collections.abc import Callable, Iterable, Sequence

from medtune.privacy.checks import luhn_check, nhs_check, resident_check
from medtune.privacy.dates import read_date
from medtune.privacy.name_tables import COMPOUND, listed
from medtune.privacy.spans import Span, fold

SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕苏卢蒋蔡贾丁魏薛叶阎余潘杜戴"
    "夏钟汪田任姜范石姚谭廖邹熊金陆郝孔白崔康毛邱秦江史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
)
GIVEN = (
    "宁安清和远明朗平舒云川林山辰星雨晴晨曦岚岩松柏竹青蓝禾穗谷泉溪洋帆航舟扬宇宸博雅诗书墨言诚信义礼智仁德静怡悦"
    "欣然嘉佳颖慧敏捷锐恒毅坚刚峰岭原野润泽涛波澜潮汐霖露雪冰梅兰菊荷莲桐枫楠桦"
)
ENGLISH_NAMES = listed(
    "Adair Alden Arlen Ashby Avery Bailey Barlow Blair Blake Brady Briar Brooks Calder Carey Carson Casey "
    "Corin Dakota Dale "
    "Darcy Devon Drew Ellis Ellery Embry Emerson Finley Flynn Garnet Glenn Gray Greer Hadley Harley Harper "
    "Haven Hollis "
    "Hunter Indigo Jesse Jordan Keegan Kelly Kendall Kerry Lane Larkin Lennox Linden Logan Marlow Mercer "
    "Merritt Morgan "
    "Noel Oakley Parker Perry Quincy Quinn Reagan Reese Remy Riley Robin Rowan Sawyer Schuyler Shannon Shelby "
    "Sidney Skyler "
    "Sloane Spencer Sterling Sutton Tatum Taylor Teagan Tracy Tyler Vale Wesley Whitney Winter Wren"
)
ROADS = listed("云溪 松岭 青禾 远山 晨曦 银杏 白桦 清泉 长桥 新柳")
DISTRICTS = listed("东溪 西岭 南禾 北泉 中桥")
STREETS = listed("Example Sample Specimen Placeholder Fictional")
MOST_DAYS = 365
PARTICLES = frozenset(listed("de da del della di la le van von der den bin al el st"))
KEY_BYTES = 16


class Surrogates:
    """Replacements of identifiers, keyed.

    Args:
        key: a secret; who has it can find out which surrogate stands for a value. None draws a new one, which is
            forgotten with this object.
    """

    def __init__(self, key: bytes | None = None) -> None:
        self._key = key or secrets.token_bytes(32)
        self._taken: dict[str, str] = {}

    def replace(self, text: str, spans: Iterable[Span], record: str = "", style: str = "surrogate") -> str:
        """The text with each span replaced.

        Args:
            spans: sorted, without overlaps, as `find` gives them.
            record: names the record; the dates of one are shifted by one number of days, -365 to 365, never 0.
            style: "surrogate", or "tag" for [NAME], [DATE], ...
        """
        pieces, end, year = "", 0, 2000
        for kind, start, stop in spans:
            value = fold(text[start:stop])[0]
            if kind == "date" and (read := read_date(value, year)):
                year = read[0].year  # of 5月16日 behind 2023年5月6日
                value = read[1](read[0] + self.shift(record)) if style != "tag" else value
            elif style != "tag":
                value = self.surrogate(kind, value, record)
            pieces += text[end:start] + (f"[{kind.upper()}]" if style == "tag" else value)
            end = stop
        return pieces + text[end:]

    def surrogate(self, kind: str, value: str, record: str = "") -> str:
        """The surrogate of one value, in the form that `fold` gives it.

        Raises:
            KeyError: a kind that is not one of `KINDS`.
        """
        maker: Callable[[str, str], str] = {
            "name": self._name,
            "date": self._date,
            "resident_id": self._resident_id,
            "ssn": lambda value, _: self._digits(value, "ssn", "666"),
            "nhs_number": self._nhs_number,
            "phone": self._phone,
            "bank_card": self._bank_card,
            "email": lambda value, _: f"user{self._number('email', value.lower()) % 10**8:08d}@example.com",
            "url": lambda value, _: f"https://example.com/{self._number('url', value) % 10**8:08d}",
            "ip": lambda value, _: f"192.0.2.{self._number('ip', value) % 254 + 1}",
            "age": lambda value, _: "九十" if "十" in value or "百" in value else "90",
            "address": self._address,
            **dict.fromkeys(("record_number", "passport", "regional_id", "account"), self._same_shape),
        }[kind]
        return maker(value, record)

    def _number(self, purpose: str, value: str) -> int:
        """A number that only the key and the value decide, even over all of 0 to 2**128 - 1."""
        digest = hmac.digest(self._key, f"{purpose}\0{value}".encode("utf-8", "surrogatepass"), "sha256")
        return int.from_bytes(digest[:16], "big")

    def _name(self, value: str, _: str) -> str:
        if value.isascii() or not "\u3400" <= value[0] <= "\u9fff":
            return re.sub(r"[A-Za-z][A-Za-z'’-]*", lambda match: self._english_word(match[0]), value)
        size = 2 if value[:2] in COMPOUND else 1
        surname = _other(SURNAMES, self._number("surname", value[:size]), value[:size])
        given = value[size:]
        for attempt in range(64):  # two people must not become one
            number = self._number("given", f"{value}\0{attempt}")
            chosen = "".join(GIVEN[number // len(GIVEN) ** i % len(GIVEN)] for i in range(min(len(given), 2)))
            name = surname + chosen
            if not given or self._taken.setdefault(name, value) == value:
                break
        return name

    def _english_word(self, word: str) -> str:
        """One word of a name, so that Smith in Mr. Smith and in John Smith become the same."""
        if word.lower() in PARTICLES:
            return word
        number = self._number("english", word.lower())
        if len(word) == 1:
            return _other("ABCDEFGHIJKLMNOPQRSTUVWXYZ", number, word.upper())
        name = _other(ENGLISH_NAMES, number, word.capitalize())
        if self._taken.setdefault(name, word.lower()) != word.lower():  # taken by another: a double name
            name += ENGLISH_NAMES[number // len(ENGLISH_NAMES) % len(ENGLISH_NAMES)].lower()
        return name.upper() if word.isupper() else name

    def shift(self, record: str) -> datetime.timedelta:
        """By how much the dates of a record are shifted."""
        days = self._number("days", record) % (2 * MOST_DAYS) - MOST_DAYS
        return datetime.timedelta(days=days if days < 0 else days + 1)

    def _date(self, value: str, record: str) -> str:
        read = read_date(value)
        return read[1](read[0] + self.shift(record)) if read else self._same_shape(value, record)

    def _digits(self, value: str, purpose: str, start: str, end: str = "") -> str:
        """The value with other digits, the first and last of which are given; what is between them stays."""
        count = sum(map(str.isdigit, value))
        plain = re.sub("[^0-9]", "", value)
        middle = max(0, count - len(start) - len(end))
        digits = iter(f"{start}{self._number(purpose, plain) % 10**middle:0{middle}d}"[: count - len(end)] + end)
        return "".join(next(digits) if char.isdigit() else char for char in value)

    def _resident_id(self, value: str, record: str) -> str:
        plain = re.sub("[^0-9Xx]", "", value)
        long = len(plain) == 18
        birth = read_date(plain[6:14] if long else f"19{plain[6:12]}")
        if len(plain) not in (15, 18) or birth is None:  # a slip in the number, found by its label
            return self._same_shape(value, record)
        day = f"{birth[0] + self.shift(record):%Y%m%d}"
        number = self._number("resident_id", plain)
        serial = number // 10**4 % 500 * 2 + int(plain[16 if long else 14]) % 2  # odd is male, even is female
        digits = f"99{number % 10**4:04d}{day if long else day[2:]}{serial:03d}"
        rest = iter(digits + (resident_check(digits) if long else ""))
        return re.sub("[0-9Xx]", lambda _: next(rest), value)

    def _nhs_number(self, value: str, _: str) -> str:
        plain = re.sub("[^0-9]", "", value)
        digits = f"999{self._number('nhs', plain) % 10**6:06d}"
        while nhs_check(digits) == 10:
            digits = f"999{(int(digits[3:]) + 1) % 10**6:06d}"
        return self._digits(value, "nhs", digits, str(nhs_check(digits)))

    def _phone(self, value: str, _: str) -> str:
        plain = re.sub("[^0-9]", "", value)
        if value.startswith("+"):
            return self._digits(value, "phone", "999")
        if re.fullmatch("(?:0?0?86)?1[3-9][0-9]{9}", plain):
            return self._digits(value, "phone", plain[:-11] + "12")
        if re.fullmatch("1?[2-9][0-9]{9}", plain):
            return self._digits(value, "phone", plain[:-7] + "55501")
        return self._digits(value, "phone", "000" if plain.startswith("0") else "1")

    def _bank_card(self, value: str, _: str) -> str:
        plain = re.sub("[^0-9]", "", value)
        digits = f"99{self._number('bank_card', plain) % 10 ** (len(plain) - 3):0{len(plain) - 3}d}"
        return self._digits(value, "bank_card", digits, luhn_check(digits))

    def _address(self, value: str, _: str) -> str:
        number = self._number("address", re.sub(r"\s", "", value))
        house = number // 100 % 900 + 100
        if re.fullmatch(r"[0-9A-Za-z -]{5,10}", value) and re.search("[0-9]", value):  # a postcode
            return re.sub("[A-Z]", "Z", re.sub("[0-9]", "0", value))
        if value.isascii():
            return f"{house} {STREETS[number % len(STREETS)]} Street, Sampletown 00000"
        return f"云川市{DISTRICTS[number % len(DISTRICTS)]}区{ROADS[number // 10 % len(ROADS)]}路{house}号"

    def _same_shape(self, value: str, _: str) -> str:
        """Another digit for each digit, another letter for each letter; the rest stays."""
        number = self._number("shape", re.sub("[^0-9A-Za-z]", "", value).upper())
        pieces = []
        for i, char in enumerate(value):
            step = number // 7**i
            if char.isdigit() and char.isascii():
                pieces.append(str(step % 10))
            elif char.isalpha() and char.isascii():
                pieces.append(chr((ord("A") if char.isupper() else ord("a")) + step % 26))
            else:
                pieces.append(char)
        return "".join(pieces)


def _other(choices: Sequence[str], number: int, own: str) -> str:
    """The choice that a number picks, or the next one if that is the value itself."""
    chosen = choices[number % len(choices)]
    return choices[(number + 1) % len(choices)] if chosen == own else chosen
