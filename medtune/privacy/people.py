"""Recognise names of people in folded text by what stands beside them: labels, titles, introductions, signatures.

A Chinese name is a surname of the table and one or two characters that given names are made of, with something behind
it that may follow a name; an English one is a run of capitalised words. Names with nothing beside them are not found.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from medtune.privacy.name_tables import (
    COMMON_SURNAMES,
    COMPOUND,
    FOLLOWS,
    NO_VALUE,
    NOT_ENGLISH_NAMES,
    NOT_GIVEN,
    NOT_NAMES,
    SURNAMES,
    WEAK_SURNAMES,
)
from medtune.privacy.spans import Span

HAN = "\u3400-\u9fff"
PERSON_WORDS = (
    "患者|病人|病员|患儿|产妇|孕妇|伤者|死者|家属|联系人|监护人|法定代理人|委托人|陪护人|主治医[师生]"
    "|主管医[师生]|经治医[师生]|接诊医[师生]|住院医师|申请医[师生]"
    "|检查医[师生]|报告医[师生]|审核医[师生]|送检医[师生]|手术医[师生]|麻醉医?师|责任护士|医[师生]|护士|大夫"
    "|主刀|术者|一助|二助|助手|报告人|报告者|审核人|审核者|审核"
    "|记录人|记录者|检验者|送检人|操作者|父亲|母亲|丈夫|妻子|配偶|儿子|女儿|户主|投保人|被保险人|受检者|咨询者"
)
LABEL = re.compile(
    rf"(?:(?:{PERSON_WORDS})(?:的?姓名|签名|签字|名字)?|(?<![A-Za-z])(?<![A-Za-z] )[Nn]ame"
    rf"|(?<![商通品药学])(?:姓名|签名|签字"
    rf"|曾用名))(?:\([{HAN}]{{1,4}}\))?[ \t]{{0,2}}[:=][ \t]{{0,4}}"
)
STRICT = re.compile("姓名|签名|签字")
ANY_HAN = re.compile(rf"[{HAN}]{{2,8}}(?:[·•.][{HAN}]{{1,8}}){{0,3}}(?![{HAN}])")
DOTTED = re.compile(rf"[{HAN}]{{1,6}}[·•][{HAN}]{{1,8}}(?:[·•][{HAN}]{{1,8}})?")
LIST_NEXT = re.compile("[、,/ 和及]{1,2}")
INTRODUCED = re.compile(
    f"(?:我叫|我的名字[叫是]|名叫|我是(?=[{HAN}]{{2,3}}[,。.!，\\s])|(?:患者|病人|患儿|病员|产妇|受检者|家属"
    f"|其[父母妻子女夫]|之[父母妻子女夫])(?:叫)?) ?(?=[{HAN}])"
)
TITLE = re.compile(
    "(?:主任医师|副主任|主治医师|主任|医生|医师|大夫|教授|护士长|护士|院长|科长|博士|老师|先生|女士|小姐|太太"
    "|阿姨|叔叔|大爷|大妈|奶奶|爷爷|同学|同志|师傅|老人|某某)"
)
SURE_TITLES = ("先生", "女士", "小姐", "太太")
NOT_TITLED = re.compile("女士们|先生们|老师们|医生们|护士站|医师[法证]|主任委|同学们")

ENGLISH = (
    r"(?:[A-Z][a-z]{1,20}(?:['’-][A-Z][a-z]{1,20}|[A-Z][a-z]{1,20})?|[A-Z]['’](?:[A-Z][a-z]{1,20}|[A-Z]{2,20})"
    r"|[A-Z]{2,20}(?:['’-][A-Z]{2,20})?)"
)
INITIAL = r"[A-Z]\.?"
PARTICLE = "de|da|del|della|di|la|le|van|von|der|den|bin|al|el|St\\."
FULL = rf"(?:{ENGLISH}|{INITIAL}(?= ))(?:,? (?:(?:{PARTICLE}) ){{0,2}}(?:{ENGLISH}|{INITIAL}(?![A-Za-z]))){{0,3}}"
ENGLISH_TITLE = re.compile(
    rf"(?<![A-Za-z-])(?:(?:Mr|Mrs|Ms|Mx|Dr|Prof)\b\.?|Miss|Master|Doctor|Nurse|Professor|Sister|MR|MRS|MS|DR)[ "
    rf"]{{1,2}}({FULL})"
)
ENGLISH_LABEL = re.compile(
    r"(?<![A-Za-z])(?:(?i:patient(?:'s)? name|full name|first name|last name|middle name|given name|family "
    r"name|surname|maiden name|pt name"
    r"|(?:attending|referring|primary care|treating|ordering)(?: physician| doctor| provider| surgeon)?"
    r"|physician(?: name)?|surgeon|provider"
    r"|doctor name|radiologist|pathologist|anesthesiologist|(?:electronically )?signed(?: by)?|dictated by"
    r"|reported by|reviewed by|verified by"
    r"|transcribed by|emergency contact|next of kin|contact person|contact name|contact|guardian|spouse|mother|father"
    r"|husband|wife|son|daughter"
    r"|nurse|doctor|insured|subscriber name|name of patient|re|pt|patient|(?<![A-Za-z] )name))[ ]{0,2}:[ \t]{0,3}"
    rf"((?:(?:Mr|Mrs|Ms|Dr)\b\.? )?{FULL})"
)
ENGLISH_INTRODUCED = re.compile(
    rf"(?:(?i:\b(?:my name is|named|name is|sincerely,|regards,|yours truly,))\s{{1,3}}({FULL})"
    rf"|\b[Pp]atient,? ({ENGLISH} (?:{INITIAL} )?{ENGLISH})(?= (?:is|was|has|had|presents|presented|reports"
    rf"|reported|came|complains|states|denies)\b|[,(]))"
)
CREDENTIAL = re.compile(
    rf"(?<![A-Za-z])({ENGLISH} (?:{INITIAL} )?{ENGLISH}), ?(?:M\.?D\b|R\.?N\b|D\.?O\b|Ph\.?D\b|N\.?P\b"
    rf"|P\.?A\b|MBBS\b|FRCS\b|MRCP\b|DNP\b)"
)
SEX = re.compile("[,( ]{0,2}[男女]")
HAS_CAPITAL = re.compile("[A-Z]")
WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*\.?")


def find_names(text: str) -> Iterator[Span]:
    """Yield names in a folded text; they may overlap."""
    labelled = ":" in text or "=" in text
    for match in LABEL.finditer(text) if labelled else ():
        yield from _after_label(text, match.end(), bool(STRICT.search(match[0])))
    for match in INTRODUCED.finditer(text):
        end = chinese_name(text, match.end())
        if end and (text[match.end()] not in WEAK_SURNAMES or "叫" in match[0] or SEX.match(text, end)):
            yield Span("name", match.end(), end)
    for match in TITLE.finditer(text):
        yield from _before_title(text, match)
    if HAS_CAPITAL.search(text):
        for pattern in (ENGLISH_TITLE, ENGLISH_INTRODUCED, CREDENTIAL, *([ENGLISH_LABEL] if labelled else [])):
            for match in pattern.finditer(text):
                yield from _english(match)


def chinese_name(text: str, start: int, boundary: bool = True) -> int:
    """End of a Chinese name of two to four characters that begins at `start`; 0 if none does.

    Args:
        boundary: what follows must be no Chinese character, or one that may follow a name.
    """
    size = 2 if text[start : start + 2] in COMPOUND else 1
    if size == 1 and text[start : start + 1] not in SURNAMES:
        return 0
    if text[start : start + 2] in NOT_NAMES or text[start : start + 3] in NOT_NAMES:
        return 0
    for given in (2, 1):
        end = start + size + given
        chars = text[start + size : end]
        if (
            len(chars) < given
            or TITLE.match(chars)
            or not all("\u3400" <= char <= "\u9fff" and char not in NOT_GIVEN for char in chars)
        ):
            continue
        after = text[end : end + 1]
        if not boundary or not after or not "\u3400" <= after <= "\u9fff" or after in FOLLOWS:
            return end
    return 0


def _after_label(text: str, start: int, strict: bool) -> Iterator[Span]:
    """Names behind a label and a colon: one, or a list of them."""
    for _ in range(8):
        end = chinese_name(text, start)
        if dotted := DOTTED.match(text, start):
            end = dotted.end()
        elif not end and (any_name := ANY_HAN.match(text, start)) and (strict or SEX.match(text, any_name.end())):
            end = any_name.end() if any_name[0] not in NO_VALUE and len(any_name[0]) <= 6 else 0
        elif not end:
            end = chinese_name(text, start, boundary=False)
        if not end or text[start:end] in NO_VALUE:
            return
        yield Span("name", start, end)
        following = LIST_NEXT.match(text, end)
        if not following or following[0] == " ":
            return
        start, strict = following.end(), False


def _before_title(text: str, title: re.Match[str]) -> Iterator[Span]:
    """The name that ends where a title begins: 诸葛明, 张伟 or 张 before 医生."""
    end = title.start()
    if NOT_TITLED.match(text, end):
        return
    for length in (4, 3, 2):
        start = end - length
        if start < 0 or chinese_name(text[start:end], 0) != length:
            continue
        begins_here = not "\u3400" <= text[start - 1 : start] <= "\u9fff"
        if text[start] in WEAK_SURNAMES and not (begins_here and title[0] in SURE_TITLES):
            continue
        if text[start - 1 : start + 1] in NOT_NAMES or (not begins_here and _is_word_and_surname(text[start:end])):
            continue
        yield Span("name", start, end)
        return
    surname = text[max(0, end - 1) : end]
    if text[max(0, end - 2) : end] in COMPOUND:
        yield Span("name", end - 2, end)
    elif surname in COMMON_SURNAMES and text[max(0, end - 2) : end] not in NOT_NAMES:
        yield Span("name", end - 1, end)


def _is_word_and_surname(name: str) -> bool:
    """Whether this is more likely a surname behind other words: 谢张, 向王."""
    return name[0] not in COMMON_SURNAMES and name[-1] in COMMON_SURNAMES and name[:2] not in COMPOUND


def _english(match: re.Match[str]) -> Iterator[Span]:
    """The longest beginning of a match that holds no word that is in no name."""
    group = match.lastindex or 0
    start, end = match.span(group)
    found = 0
    for word in WORD.finditer(match.string, start, end):
        if len(word[0].strip(".")) > 1 and word[0].lower().strip(".") in NOT_ENGLISH_NAMES:
            break
        found = word.end()
    while found and match.string[found - 1] in ",. " and not re.search(r"\b[A-Z]\.$", match.string[start:found]):
        found -= 1
    if found - start >= 2:
        yield Span("name", start, found)
