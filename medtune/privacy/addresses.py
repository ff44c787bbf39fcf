"""Recognise postal addresses in folded text: Chinese from province to room, US street, town and ZIP, British postcode.

A Chinese address needs a road with a house number, a province or prefecture with a place below it, or a label such as
住址. A lone city, as in "武汉市卫健委", names no one and is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from medtune.privacy.place_names import PREFECTURES, PROVINCES, US_STATES
from medtune.privacy.spans import Span

HAN = "\u3400-\u9fff"
NUMBER = "[0-9A-Z一二三四五六七八九十百]{1,5}"
ROOM = rf"(?:[甲乙丙丁东西南北]?{NUMBER}(?:[-#][0-9A-Z]{{1,4}})* ?(?:号楼|号院|栋|幢|座|单元|室|楼|层|户|号|弄|组))"
STREET = re.compile(
    r"(?:路|街|道|巷|胡同|弄|里|村|屯|庄|苑|园|小区|社区|公寓|花园|大院|镇"
    r"|乡)[东西南北中]?(?:[一二三四五六七八九十0-9]{1,2}[段区期组])? ?"
    rf"(?:[0-9]{{1,5}}|[一二三四五六七八九十百]{{1,5}})(?:[-之][0-9]{{1,4}})? ?(?:号(?![码线脉])|弄|栋|幢|号楼|单元|座)"
    rf"(?:[院内]?[{HAN}]{{0,10}}?{ROOM}){{0,5}}"
)
FIRST_PLACE = re.compile(f"(?:{'|'.join(PROVINCES + PREFECTURES)})[省市]")
BACK = re.compile(rf"[{HAN}A-Za-z0-9()]{{1,40}}\Z")
NOT_BEFORE = re.compile(
    "[^\n]*(?:地址|住址|居住于|居住在|家住|住在|住于|现住|位于|户籍|籍贯|来自|就读于|搬到|送到|寄到|送往|前往"
    "|回到|单位|[在于是为址到住从至给的])"
)
NOT_A_ROAD = re.compile(
    "[吸通隧管孔产肠胃食消泌尿呼气胆阴耳腺弯神经传电旁针味知]道|[环回思线电通经尿泌]路|农村|[0-9]道"
)

PLACE = "|".join(sorted({*PROVINCES, *PREFECTURES}, key=len, reverse=True))
NOT_A_NAME = "和与及或的在是有等各为对从到将被把由向于这那该本市省我你他们去来了著"
LEVEL = rf"(?:[^\W0-9A-Za-z_{NOT_A_NAME}]{{1,6}}?(?:自治州|自治县|新区|地区|街道|社区|[市州盟区县旗镇乡村屯]))"
CHAIN = re.compile(
    rf"(?:{PLACE})(?:维吾尔自治区|壮族自治区|回族自治区|自治区|特别行政区|地区|[省市州盟])?"
    rf"(?:{LEVEL}){{1,5}}(?:[{HAN}]{{0,10}}?{ROOM}){{0,5}}"
)
NOT_CHAIN = re.compile(
    "(?:[省市州盟]|^..)(?:[各全多等]?[省市区县乡]*|[社市郊城灾疫山牧辖]区|农村|乡村|.{0,4}医院.{0,4}区)$"
    "|(?:居民|小|院|病|库|景|湖|地|[省市州]特)区$|行政区$|城市$|[某各全]"
)

ADDRESS_LABEL = re.compile(
    r"(?:家庭住址|家庭地址|现住址|现住地|住址|(?<!网络)(?<!IP)(?<!网)地址|户籍地址?|户口所在地|户口地址|籍贯"
    r"|出生地|居住地|工作单位|家住|现住)"
    rf"[ \t]{{0,2}}[:是为在于]?[ \t]{{0,2}}((?![0-9 ]*[,.;。])[{HAN}A-Za-z0-9 #()-]{{2,60}})"
)
LABEL_STOPS = re.compile(
    " {2,}|[ ]?(?:电话|手机|邮编|联系|性别|年龄|职业|民族|入院|身份证|出生|因|婚姻|病史|姓名|工作单位|住院|就诊|主诉)"
)
HAS_PLACE = re.compile(f"(?:{PLACE})|[省市区县镇乡村路街道巷弄号栋楼室院厂校司]|[0-9]")
POSTCODE = re.compile(
    r"(?:邮编|邮政编码)[ \t]{0,2}[:是为]?[ \t]{0,2}([0-9]{6})(?![0-9])"
    r"|\b(?:zip|zip ?code|postal code)[ \t]{0,2}[:is]{0,2}[ \t]{0,2}([0-9]{5}(?:-[0-9]{4})?)(?![0-9])"
    r"|\b(?:post ?code)[ \t]{0,2}[:is]{0,2}[ \t]{0,2}([A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2})\b",
    re.IGNORECASE,
)

STREET_WORD = (
    "Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Way|Terrace|Ter|Circle"
    "|Cir|Highway|Hwy|Parkway"
    "|Pkwy|Square|Sq|Trail|Crescent|Close|Gardens|Grove"
)
CAPITAL = r"[A-Z][A-Za-z'’]{1,20}"
STATE = "|".join(US_STATES)
TOWN = rf"{CAPITAL}(?:[ -]{CAPITAL}){{0,2}}"
US_STREET = re.compile(
    rf"(?<![0-9A-Za-z.,-])[0-9]{{1,6}}[A-Za-z]? (?:[NSEW]{{1,2}}\.? |North |South |East |West )?"
    rf"(?:(?:{CAPITAL}|[0-9]{{1,3}}(?:st|nd|rd|th)) ){{1,3}}(?:{STREET_WORD})\b\.?"
    rf"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Floor|#)\.? ?#?[0-9A-Za-z-]{{1,6}})?"
    rf"(?:, ?{TOWN})?(?:,? (?:{STATE})\b)?(?:,? [0-9]{{5}}(?:-[0-9]{{4}})?(?![0-9]))?"
)
US_TOWN = re.compile(rf"\b{TOWN}, ?(?:{STATE}) [0-9]{{5}}(?:-[0-9]{{4}})?(?![0-9])")
PO_BOX = re.compile(r"\b[Pp]\.? ?[Oo]\.? Box [0-9]{1,6}(?![0-9])")
ENGLISH_LABEL = re.compile(
    r"(?<![A-Za-z])(?:home address|mailing address|street address|address|residence|lives at|resides at|residing at)"
    r"[ \t]{0,2}[:=]?[ \t]{0,2}([0-9]{1,6}[A-Za-z]? [A-Z0-9][^\n;|。]{3,80})",
    re.IGNORECASE,
)
ENGLISH_END = re.compile(r"[.!?](?: |$)|,? (?:and|with|who|was|is|phone|tel|dob|mrn|email)\b", re.IGNORECASE)


HOUSE_WORDS = ("号", "弄", "栋", "幢", "单元", "座")
AREA_WORDS = ("区", "县", "旗", "镇", "乡", "村", "屯", "街")


def find_places(text: str) -> Iterator[Span]:
    """Yield addresses and postcodes in a folded text; they may overlap."""
    lower = text.lower()
    if any(word in text for word in HOUSE_WORDS):
        for match in STREET.finditer(text):
            yield from _street(text, match)
    if any(word in text for word in AREA_WORDS):
        for match in CHAIN.finditer(text):
            if not NOT_CHAIN.search(match[0]):
                yield Span("address", *match.span())
    for match in ADDRESS_LABEL.finditer(text):
        value = match[1][: stop.start()] if (stop := LABEL_STOPS.search(match[1])) else match[1]
        value = value.rstrip()
        if len(value) >= 2 and HAS_PLACE.search(value):
            yield Span("address", match.start(1), match.start(1) + len(value))
    if any(word in lower for word in ("邮", "zip", "post")):
        yield from (Span("address", *match.span(match.lastindex or 0)) for match in POSTCODE.finditer(text))
    for pattern in (US_STREET, US_TOWN, PO_BOX):
        yield from (Span("address", *match.span()) for match in pattern.finditer(text))
    if any(word in lower for word in ("address", "resid", "lives at")):
        for match in ENGLISH_LABEL.finditer(text):
            end = stop.start() if (stop := ENGLISH_END.search(match[1])) else len(match[1])
            yield Span("address", match.start(1), match.start(1) + end)


def _street(text: str, match: re.Match[str]) -> Iterator[Span]:
    """A road and its number with the name before it, back to a word such as 住 that no name holds."""
    before = BACK.search(text[max(0, match.start() - 40) : match.start()])
    if not before:
        return
    name = before[0]
    if stop := NOT_BEFORE.match(name):
        name = name[stop.end() :]
    if place := FIRST_PLACE.search(name):
        name = name[place.start() :]
    if not name or NOT_A_ROAD.search(name[-1] + match[0][:2]):
        return
    yield Span("address", match.start() - len(name), match.end())
