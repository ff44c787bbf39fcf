"""Recognise identity numbers, phones, record numbers, cards and addresses of the net in folded text.

Every pattern is anchored at a digit run, a label or an "@", and bounded, so that time grows with the length of the text
alone. Numbers of medicine (doses, values, years, accession numbers) stay out: a number needs a check digit, a form that
only identifiers have, or a label. Numbers that no one has are not found: 555-01xx, +999, 192.0.2.x, example.com, region
99 of a resident ID; our surrogates are made of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from medtune.privacy.checks import (
    is_hong_kong_id,
    is_luhn,
    is_nhs_number,
    is_resident_id,
    is_ssn,
    is_taiwan_id,
)
from medtune.privacy.spans import Span

BEFORE = r"(?<![0-9A-Za-z])(?<![0-9]\.)"
AFTER = r"(?![0-9A-Za-z])(?!\.[0-9])"

COMPACT = re.compile(rf"{BEFORE}[0-9]{{7,19}}[Xx]?{AFTER}")
GROUPED = re.compile(rf"{BEFORE}(?<![0-9][ -])[0-9]+(?:(?: - |[ -])[0-9]+){{1,17}}[Xx]?(?![0-9A-Za-z])")
GROUPS = re.compile("[0-9]+[Xx]?")

UNIT = re.compile(" ?(?:[mkμun]?g|m?[lL]|m?IU|U|mmol|[cm]m|次|片|粒|支|单位|毫|微|克|元)(?![A-Za-z])|%|/")
"""Of a quantity: what stands before it is a row of values, not a phone."""

AREA_CODE = r"0(?:10|2[0-57-9]|[3-9][0-9]{2})"
MOBILE = re.compile("(?:0?0?86)?1[3-9][0-9]{9}")
LANDLINE = re.compile(r"0(?:10|2[0-57-9])[0-9]{8}|0[3-9][0-9]{2}[0-9]{7,8}")
US_PHONE = re.compile("1?[2-9][0-9]{2}(?!55501)[2-9][0-9]{6}")
MOBILE_SHAPES = {(3, 4, 4), (4, 3, 4), (3, 3, 5), (3, 8), (7, 4), (1,) * 11}
MOBILE_SHAPES |= {(2, *shape) for shape in MOBILE_SHAPES} | {(2, 11)}
LANDLINE_SHAPES = {(3, 8), (4, 7), (4, 8), (3, 4, 4), (4, 4, 4), (4, 3, 4)}
CARD_SHAPES = {(4, 4, 4, 4), (4, 4, 4, 4, 1), (4, 4, 4, 4, 2), (4, 4, 4, 4, 3), (6, 13)}
ID_SHAPES = {(6, 8, 4), (6, 4, 4, 4), (6, 6, 3), (6, 4, 2, 2, 4)}

PHONE_FORMS = {
    "+": re.compile(r"(?<![0-9A-Za-z)])\+(?!999)[0-9](?:[ .()-]{0,2}[0-9]){7,14}(?![0-9])"),
    ")": re.compile(
        rf"\({AREA_CODE}\)[ -]?[0-9]{{3,4}}[ -]?[0-9]{{4}}(?![0-9])"
        r"|(?:(?<![0-9A-Za-z])1[ .-]?)?\([2-9][0-9]{2}\)[ .-]?(?!555[ .-]?01)[2-9][0-9]{2}[ .-]?[0-9]{4}(?![0-9])"
    ),
    ".": re.compile(rf"{BEFORE}[2-9][0-9]{{2}}\.(?!555\.01)[2-9][0-9]{{2}}\.[0-9]{{4}}{AFTER}"),
    "0": re.compile(rf"{BEFORE}0(?:7[0-9]{{3}}|1[0-9]{{2,3}}|20)[ -][0-9]{{3,4}}[ -]?[0-9]{{3,4}}{AFTER}"),  # British
}
"""A character that must be there -> pattern."""
EXTENSION = re.compile(r" ?(?:转|ext\.? ?|x|-) ?[0-9]{1,5}(?![0-9])", re.IGNORECASE)

LABEL_END = r"(?:号码|号|编号|码|numbers?|no\b\.?|#|id)?[ \t]{0,2}(?:[:#=是为]|is)?[ \t]{0,3}"
PHONE_LABEL = re.compile(
    r"(?:电话|手机|联系方式|座机|传真|热线|(?<![a-z])(?:telephone|tel|phone|mobile|cell|fax)(?![a-z]))"
    rf"{LABEL_END}(\(?[0-9][0-9 ()-]{{5,20}}[0-9])(?![0-9])",
    re.IGNORECASE,
)
RECORD_VALUE = (  # behind a colon it may be short
    r"[ \t]{0,2}(?:[:=][ \t]{0,3}([A-Za-z]{0,4}[-_]?[0-9][0-9A-Za-z_/-]{0,23})"
    r"|(?:[#是为-]|is)?[ \t]{0,3}([A-Za-z]{0,4}[-_]?[0-9][0-9A-Za-z_/-]{2,23}))"
)
RECORD_LABEL = re.compile(
    r"(?:住院|病历|病案|门诊|就诊卡?|诊疗卡|登记|检查|检验|病理|影像|超声|放射|医保卡?|社保卡?|标本|样本|病人"
    r"|患者|急诊|留观|挂号|医疗证|体检|处方|报告)"
    rf"(?:编?号码?|ID){RECORD_VALUE}"
    r"|床位?号[ \t]{0,2}[:=是为]?[ \t]{0,3}([A-Za-z]{0,2}[0-9]{1,4})(?![0-9A-Za-z])"
)
ENGLISH_RECORD_LABEL = re.compile(
    r"(?<![a-z])(?:mrn|medical record|hospital|admission|inpatient|outpatient|patient|encounter|chart|health "
    r"plan|insurance"
    r"|policy|member|medicare|medicaid|subscriber|beneficiary|account|specimen|licen[cs]e|dea)"
    rf"[ _]?(?:numbers?|no\b\.?|#|id(?:entifier)?\b|(?<=mrn)){RECORD_VALUE}",
    re.IGNORECASE,
)
ACCOUNT_LABEL = re.compile(
    r"(?:微信|(?<![a-z])(?:wechat|weixin|vx|qq)(?![a-z]))(?:号码?|账号|群号?|id)?[ \t]{0,2}[:是为]?[ \t]{0,3}"
    r"([a-z0-9][a-z0-9_-]{4,19})(?![a-z0-9_])",
    re.IGNORECASE,
)
ID_LABEL = re.compile(
    r"(?:身份证件?|证件|(?<![a-z])(?:id card|identity card|resident id|national id|hkid|id_card))(?:号码|号"
    r"|编号|numbers?|no\b\.?)?"
    r"[ \t]{0,2}[:是为]?[ \t]{0,3}([0-9](?:[ -]?[0-9]){13,16}[ -]?[0-9Xx](?![0-9])|[A-Za-z]{1,2}[0-9]{6}\(?[0-9Aa]\)?"
    r"|[157][0-9]{6}\(?[0-9]\)?)(?![0-9])",
    re.IGNORECASE,
)
PERMIT_LABEL = re.compile(
    r"(?:通行证|回乡证|台胞证|居住证)(?:号码|号|编号)?[ \t]{0,2}[:是为]?[ \t]{0,3}([A-Za-z]{0,2}[0-9]{7,10}"
    r"|[0-9]{17}[0-9Xx])(?![0-9A-Za-z])"
)
PASSPORT_LABEL = re.compile(
    r"(?:护照|(?<![a-z])passport)[ _]?(?:号码|号|numbers?|no\b\.?|#)?[ \t]{0,2}(?:[:是为]|is)?[ \t]{0,3}"
    r"((?=(?:[a-z]{0,3}[0-9]){5})[a-z0-9]{6,10})(?![a-z0-9])",
    re.IGNORECASE,
)
SSN_LABEL = re.compile(
    r"(?:(?<![a-z])ssn|social security)(?: numbers?| no\b\.?|#)?[ \t]{0,2}(?:[:#]|is)?[ \t]{0,3}([0-9]{3}[ "
    r"-]?[0-9]{2}[ -]?[0-9]{4})(?![0-9])",
    re.IGNORECASE,
)
NHS_LABEL = re.compile(
    r"(?<![a-z])nhs(?: numbers?| no\b\.?|#|_number|_no)?[ \t]{0,2}(?:[:#]|is)?[ \t]{0,3}([0-9]{3}[ "
    r"-]?[0-9]{3}[ -]?[0-9]{4})(?![0-9])",
    re.IGNORECASE,
)
CARD_LABEL = re.compile(
    r"(?:银行卡|信用卡|储蓄卡|借记卡|卡号|账号|帐号|(?<![a-z])(?:card|account|iban))[^0-9\n]{0,12}([0-9](?:[ "
    r"-]?[0-9]){12,18})(?![0-9])",
    re.IGNORECASE,
)
HONG_KONG = re.compile(r"(?<![0-9A-Za-z])([A-Z]{1,2})([0-9]{6})\(([0-9A])\)")
TAIWAN = re.compile(r"(?<![0-9A-Za-z])[A-Z][1289][0-9]{8}(?![0-9A-Za-z])")
EMAIL_END = re.compile(r"(?<=[A-Za-z0-9_%+-])@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}")
EMAIL_START = re.compile(r"[A-Za-z0-9._%+-]{1,64}\Z")
RESERVED_HOST = re.compile(r"@(?:[a-z0-9-]+\.)*example(?:\.(?:com|net|org))?$|\.invalid$", re.IGNORECASE)
URL = re.compile(r"(?<![A-Za-z])(?:https?://|www\.)[A-Za-z0-9@:%._+~#=/?&-]{4,400}")
PERSONAL_URL = re.compile(
    r"//[^/]{1,80}@|/~\w|[?&](?:patient|mrn|name|phone|mobile|email|uid|user|id_?card|openid)\w{0,12}=[^&]"
    r"|(?:weibo\.com/(?:u/)?|linkedin\.com/in/|facebook\.com/|twitter\.com/|instagram\.com/|zhihu\.com/people/"
    r"|haodf\.com/doctor/|space\.bilibili\.com/|orcid\.org/|researchgate\.net/profile/)[\w.-]{2}",
    re.IGNORECASE,
)
IPV4 = re.compile(r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9A-Za-z])(?!\.[0-9])")
HAS_DIGIT = re.compile("[0-9]")


def find_numbers(text: str) -> Iterator[Span]:
    """Yield numbers and addresses of the net in a folded text; they may overlap."""
    if "@" in text:
        yield from _emails(text)
    if "://" in text or "www." in text:
        yield from (Span("url", *m.span()) for m in URL.finditer(text) if PERSONAL_URL.search(m[0]))
    if not HAS_DIGIT.search(text):
        return
    for match in COMPACT.finditer(text):
        if kind := _compact_kind(match[0]):
            yield Span(kind, match.start(), _phone_end(text, match.end(), kind))
    for match in GROUPED.finditer(text):
        yield from _in_groups(text, match)
    for char, pattern in PHONE_FORMS.items():
        for match in pattern.finditer(text) if char in text else ():
            yield Span("phone", match.start(), _phone_end(text, match.end(), "phone"))
    yield from _cards_and_addresses(text)
    yield from _labelled(text)


def _emails(text: str) -> Iterator[Span]:
    for match in EMAIL_END.finditer(text):
        start = EMAIL_START.search(text[max(0, match.start() - 64) : match.start()])
        if start and not RESERVED_HOST.search(match[0]):
            yield Span("email", match.start() - len(start[0]), match.end())


def _compact_kind(number: str) -> str | None:
    """Kind of a run of digits that stands without a label."""
    if len(number) in (15, 18) and is_resident_id(number):
        return "resident_id"
    if not number.isdigit():
        return None
    if MOBILE.fullmatch(number) or (len(number) in (10, 11, 12) and LANDLINE.fullmatch(number)):
        return "phone"
    if 16 <= len(number) <= 19 and number.startswith("62") and is_luhn(number):
        return "bank_card"
    return None


def _phone_end(text: str, end: int, kind: str) -> int:
    """End of a span, with the extension of a phone in it."""
    extension = EXTENSION.match(text, end) if kind == "phone" else None
    return extension.end() if extension else end


def _in_groups(text: str, run: re.Match[str]) -> Iterator[Span]:
    """Numbers among groups of digits with single spaces or hyphens between them."""
    groups = [(m.start(), m.end()) for m in GROUPS.finditer(text, run.start(), run.end())]
    whole = "".join(text[start:end] for start, end in groups)
    if len(whole) in (15, 18) and is_resident_id(whole, strict=len(whole) == 18):
        yield Span("resident_id", run.start(), run.end())
        return
    first = 0
    while first < len(groups) - 1:
        for last in range(min(len(groups), first + 12), first + 1, -1):
            piece = groups[first:last]
            number = "".join(text[start:end] for start, end in piece)
            shape = tuple(end - start for start, end in piece)
            if UNIT.match(text, piece[-1][1]):
                continue
            if kind := _grouped_kind(number, shape, text[piece[0][1]], len(piece) == len(groups)):
                yield Span(kind, piece[0][0], _phone_end(text, piece[-1][1], kind))
                first = last - 1
                break
        first += 1


def _grouped_kind(number: str, shape: tuple[int, ...], separator: str, whole: bool) -> str | None:
    """Kind of a number written in groups of these lengths; `whole` if no other group stands beside it."""
    if shape in ID_SHAPES and is_resident_id(number, strict=len(number) == 18):
        return "resident_id"
    if not number.isdigit():
        return None
    if shape in MOBILE_SHAPES and MOBILE.fullmatch(number):
        return "phone"
    if shape in LANDLINE_SHAPES and LANDLINE.fullmatch(number):
        return "phone"
    if shape == (3, 2, 4) and separator == "-" and is_ssn(number):
        return "ssn"
    if shape in ((3, 3, 4), (1, 3, 3, 4)) and separator == "-" and US_PHONE.fullmatch(number):
        return "phone"
    if whole and shape in CARD_SHAPES and number[0] in "3456" and is_luhn(number):
        return "bank_card"
    return None


def _cards_and_addresses(text: str) -> Iterator[Span]:
    for match in HONG_KONG.finditer(text):
        if is_hong_kong_id(*match.groups()):
            yield Span("regional_id", *match.span())
    for match in TAIWAN.finditer(text):
        if is_taiwan_id(match[0]):
            yield Span("regional_id", *match.span())
    for match in IPV4.finditer(text):
        octets = [int(part) for part in match[0].split(".")]
        labelled = "ip" in text[max(0, match.start() - 12) : match.start()].lower()
        sure = labelled or (len(match[0]) >= 11 and octets[0] > 7)
        if max(octets) < 256 and sure and octets[:3] != [192, 0, 2]:  # 2.7.11.1 is an enzyme
            yield Span("ip", *match.span())


def _labelled(text: str) -> Iterator[Span]:
    """Numbers that a word before them explains."""
    lower = text.lower()
    for kind, words, pattern, is_valid in LABELLED:
        if not any(word in lower for word in words):  # far cheaper than the pattern
            continue
        for match in pattern.finditer(text):
            group = match.lastindex or 0
            if is_valid(re.sub("[ ()-]", "", match[group])):
                yield Span(kind, *match.span(group))


def _is_phone_length(number: str) -> bool:
    return 7 <= len(number) <= 15


def _is_labelled_id(number: str) -> bool:
    """Not one of our own surrogates, which are of region 99."""
    return not (len(number) > 14 and number.startswith("99"))


LABELLED: tuple[tuple[str, tuple[str, ...], re.Pattern[str], Callable[[str], bool]], ...] = (
    ("record_number", ("号", "id", "编码"), RECORD_LABEL, bool),
    ("record_number", ("mrn", "number", " no", "_no", "#", "id"), ENGLISH_RECORD_LABEL, bool),
    ("account", ("微信", "wechat", "weixin", "vx", "qq"), ACCOUNT_LABEL, lambda number: bool(HAS_DIGIT.search(number))),
    ("regional_id", ("证",), PERMIT_LABEL, bool),
    ("passport", ("护照", "passport"), PASSPORT_LABEL, bool),
    (
        "resident_id",
        ("证", "id", "identity"),
        ID_LABEL,
        lambda number: len(number) in (15, 18) and _is_labelled_id(number),
    ),
    ("regional_id", ("证", "id", "identity"), ID_LABEL, lambda number: len(number) < 15),
    (
        "phone",
        ("电话", "手机", "联系", "座机", "传真", "热线", "tel", "phone", "mobile", "cell", "fax"),
        PHONE_LABEL,
        _is_phone_length,
    ),
    ("ssn", ("ssn", "social"), SSN_LABEL, is_ssn),
    ("nhs_number", ("nhs",), NHS_LABEL, is_nhs_number),
    ("bank_card", ("卡", "号", "card", "account", "iban"), CARD_LABEL, is_luhn),
)
"""(kind, words of which one must be there, pattern, what the number must be) of each label."""
