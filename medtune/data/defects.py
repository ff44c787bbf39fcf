"""What can be wrong with one row: the classes of defects, and the checks of a row's text.

A fault is a row that cannot be trained on, or that would teach what nobody meant. A note is a row that is trained as it
stands and is worth a look. Findings carry places and class names; the text of a row only where a caller asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from medtune.data.records import Row
from medtune.data.tables import NOTHING
from medtune.data.words import ENGLISH, LATIN, SCRIPTS, conversations_of, language, leaves
from medtune.errors import DataError

FAULTS = {
    "unreadable": "the row cannot be read from the file",
    "missing_field": "a column or key that the format needs is not there",
    "wrong_type": "a value is not text, or not of the shape the format has",
    "role_order": "roles are unknown, repeated or out of order",
    "misfit": "no format, or not that of the file, reads the row",
    "empty_question": "a question is empty",
    "empty_answer": "an answer is empty",
    "same_answers": "the chosen and the rejected answer are the same",
    "echo": "the answer is the question again",
    "huge_text": "a message is longer than any dialogue's, over a million characters",
    "control_character": "the text holds control characters",
    "mojibake": "the text was decoded wrongly: U+FFFD, or bytes of UTF-8 read as another encoding",
    "placeholder": "a placeholder, such as <NAME>, is not filled in",
    "too_long": "the row has more tokens than --max-length",
}
NOTES = {
    "zero_width": "the text holds invisible characters: zero-width, byte order marks, directions, private use",
    "special_token": "the text looks like a token that ends or begins a turn; it is read as text",
    "open_question": "the dialogue ends on a question; the answers before it are trained on",
    "skipped": "a sound row that holds nothing to learn, such as a tie",
    "duplicate": "an earlier row has the same words",
    "language_mix": "question and answer are in different languages",
}
DEFECTS = {**FAULTS, **NOTES}

# The line feed, the tab and the carriage return belong to text; so does the line separator of some spreadsheets.
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]|_x00[01][0-9A-F]_")
# What UTF-8 looks like read as Latin-1 or Windows-1252, as GB18030, and a decoder's own mark.
MOJIBAKE = re.compile(
    r"\ufffd|[\u00c2-\u00f4][\u0080-\u00bf\u2018-\u2022\u20ac\u2122]|â€[\u0080-\u2122]|锟斤拷|烫烫烫|屯屯屯|ï¿½"
)
ZERO_WIDTH = re.compile(
    r"[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\u00ad\ue000-\uf8ff\ufff9-\ufffb]"
)
PLACEHOLDER = re.compile(
    r"<(?:NAME|AUTHOR|COMPANY|MODEL|PLACEHOLDER|TODO)>|\[INSERT [A-Z ]+\]"
    r"|(?<!\$)\{\{ ?(?:name|author|company|developer|model|model_name|user_name|assistant_name) ?\}\}"
)
SPECIAL_TOKEN = re.compile(
    r"<\|[a-zA-Z_]\w*\|>|<｜[^<>｜]{1,40}｜>|</?s>|<eo[ahms]>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|\[(?:UNUSED_TOKEN_\d+)\]"
)
TEXT_CHECKS = {
    "control_character": CONTROL,
    "mojibake": MOJIBAKE,
    "placeholder": PLACEHOLDER,
    "zero_width": ZERO_WIDTH,
    "special_token": SPECIAL_TOKEN,
}
# No text without one of these has any defect of the above: one quick search for the many that have none.
SUSPECT = re.compile(r"[^\t\n\r\x20-\x7e\u3000-\u4dff\u4e00-\u9fff\uff01-\uff5e]|[<\[{_锟烫屯]")
# A question that asks for another language gets one.
TRANSLATION = re.compile(r"翻译|译成|译为|英文|英语|中文|汉语|translat|english|chinese|mandarin", re.I)
BEGINNING = 600
"""Characters of a text that tell its language."""
PROSE = 0.25
"""Share of small words (the, of, is) that English prose has, and code or a list of names has not."""
MOJIBAKE_LETTERS = 3
"""Of two-byte pairs that might be words, as Ã© in a name, so many must stand in a text."""
# Names of columns and keys that hold questions, and answers; ShareGPT's and OpenAI's hold both.
QUESTIONS = re.compile(r"(?:input|question|instruction|prompt|query|ask|value|content|问题|问)(?:_zh)?", re.I)
ANSWERS = re.compile(
    r"(?:output(?:\[\d+\])?|answer|response|completion|chosen|rejected|text|value|content|答案|回答|答)(?:_zh)?", re.I
)
SURE_SIGNS = ("â€", "ï¿½")  # a quotation mark, and a decoder's own mark, read as Windows-1252
ECHO = 12  # characters; a greeting may be answered by itself
HUGE = 1_000_000
CONTEXT = 20


class Finding(NamedTuple):
    """One defect of one row."""

    defect: str
    origin: str
    field: str
    """Path of the value inside the row, "conversation[0].output"; "" for the row itself."""
    told: str
    """What is the matter, without the row's text."""
    text: str = ""
    """Text around the place; shown only when asked for."""

    @property
    def is_fault(self) -> bool:
        """True of a fault, False of a note."""
        return self.defect in FAULTS


# Words of the data layer's own messages -> the class of the fault they tell.
TOLD = (
    ("missing_field", re.compile(r"no key|no column|misses the key|wants '|no '\w+'; it has")),
    ("role_order", re.compile(r"role|in a row|must be the first|no assistant message|must alternate")),
    ("wrong_type", re.compile(r"wanted (?:text|an object|a list|objects)|got an? \w+|failed on|TypeError")),
)


def classify(fault: DataError, origin: str) -> Finding:
    """The finding that a refused row is; the class is told from the message, which never quotes the row."""
    told = str(fault)
    told = told.removeprefix(f"{origin}: ")
    place = re.match(r"((?:\w+(?:\[\d+\])*)(?:\.\w+(?:\[\d+\])*)*): ", told)
    defect = next((name for name, words in TOLD if words.search(told)), "misfit")
    told = told[place.end() :] if place else told
    return Finding(defect, origin, place[1] if place else "", told.split(". ")[0].removesuffix("."))


def check_record(row: Row, record: Any) -> Iterator[Finding]:
    """Yield the defects of a row that its format can read: what is empty, and what its text holds."""
    conversations = conversations_of(record)
    yield from _check_empty(row, conversations)
    yield from _check_echo(row, conversations)
    if len(conversations) == 2 and _last(conversations[0]).strip() == _last(conversations[1]).strip():
        yield Finding("same_answers", row.origin, "rejected", "it is the chosen answer")
    texts = dict.fromkeys(m.content for conversation in conversations for m in conversation.messages)
    for content in texts:
        if content and SUSPECT.search(content):
            yield from _check_text(row, content)
    yield from _check_languages(row, conversations[0])


def check_fields(row: Row) -> Iterator[Finding]:
    """Yield the defects of the texts of a row that no format reads."""
    for path, text in leaves(row.fields):
        for defect, match in _defects_of(text):
            yield _text_finding(row, defect, match, text, path)


def _check_echo(row: Row, conversations: tuple[Any, ...]) -> Iterator[Finding]:
    """An answer that is its only question (a greeting may be, and later in a dialogue people ask for it); huge ones."""
    for conversation in conversations:
        said = [(m.role, m.content.strip()) for m in conversation.messages if m.role != "system"]
        if [role for role, _ in said] == ["user", "assistant"] and said[0][1] == said[1][1] and len(said[0][1]) >= ECHO:
            yield Finding("echo", row.origin, "", DEFECTS["echo"])
        for number, message in enumerate(conversation.messages):
            if len(message.content) > HUGE and len(said) > 1:
                yield Finding("huge_text", row.origin, f"messages[{number}]", f"{len(message.content):,} characters")


def _check_empty(row: Row, conversations: tuple[Any, ...]) -> Iterator[Finding]:
    told: set[tuple[str, str]] = set()
    for conversation in conversations:
        messages = conversation.messages
        if all(m.role != "user" for m in messages) and (field := _unasked(row)):
            told.add(("empty_question", field))
        for number, message in enumerate(messages):
            if message.tool_calls or message.content.strip() not in ("", *NOTHING):
                continue
            if message.role == "user":
                told.add(("empty_question", _blank(row, QUESTIONS) or f"messages[{number}]"))
            elif message.role == "assistant" and message.trained:
                told.add(("empty_answer", _blank(row, ANSWERS) or f"messages[{number}]"))
        if messages[-1].role in ("user", "tool"):
            told.add(("open_question", f"messages[{len(messages) - 1}]"))
    for defect, field in sorted(told):
        yield Finding(defect, row.origin, field, DEFECTS[defect])


def _unasked(row: Row) -> str:
    """Path of the blank question of a row that has none; "" for a text to learn, which XTuner writes that way too."""
    return "" if isinstance(row.fields, Mapping) and "conversation" in row.fields else _blank(row, QUESTIONS)


def _blank(row: Row, names: re.Pattern[str]) -> str:
    """Path of the first blank value under such a name, "" if there is none."""
    blank = (path for path, text in leaves(row.fields) if text.strip() in ("", *NOTHING))
    return next((path for path in blank if names.fullmatch(path.rpartition(".")[2])), "")


def _last(conversation: Any) -> str:
    return str(conversation.messages[-1].content)


def _check_text(row: Row, content: str) -> Iterator[Finding]:
    for defect, match in _defects_of(content):
        places = ((path, text) for path, text in leaves(row.fields) if match[0] in text)
        yield _text_finding(row, defect, match, content, next(places, ("", ""))[0])


def _defects_of(text: str) -> Iterator[tuple[str, re.Match[str]]]:
    for defect, pattern in TEXT_CHECKS.items():
        match = pattern.search(text)
        if match and (defect != "mojibake" or _is_mojibake(text, match)):
            yield defect, match


def _is_mojibake(text: str, match: re.Match[str]) -> bool:
    """Two accented characters may be a word; three pairs in one text that decode again as UTF-8 are not."""
    if not "\u00c2" <= match[0][0] <= "\u00f4":
        return True
    pairs = re.findall(r"[\u00c2-\u00f4][\u0080-\u00bf]+", text)
    return sum(map(_decodes, pairs)) >= MOJIBAKE_LETTERS or any(sign in text for sign in SURE_SIGNS)


def _decodes(pair: str) -> bool:
    try:
        pair.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return False
    return True


def _text_finding(row: Row, defect: str, match: re.Match[str], text: str, path: str) -> Finding:
    code = f" (U+{ord(match[0]):04X})" if len(match[0]) == 1 else ""
    around = text[max(match.start() - CONTEXT, 0) : match.end() + CONTEXT]
    return Finding(defect, row.origin, path, f"{DEFECTS[defect]}{code}", around)


def _check_languages(row: Row, conversation: Any) -> Iterator[Finding]:
    question = next((m.content for m in conversation.messages if m.role == "user"), "")
    answer = next((m.content for m in conversation.messages if m.role == "assistant"), "")
    sides = (_prose(question[:BEGINNING]), _prose(answer[:BEGINNING]))
    if set(sides) == {"zh", "en"} and not TRANSLATION.search(question):
        yield Finding("language_mix", row.origin, "", f"the question is {sides[0]}, the answer {sides[1]}")


def _prose(text: str) -> str:
    """zh or en of a text that is clearly prose of one of them; "" of a name, a list, code, or a bit of both."""
    if len(text) < CONTEXT:
        return ""
    found = language(text)
    if found == "en":
        latin = LATIN.findall(text)
        small = len(ENGLISH.findall(text))
        return "en" if small >= PROSE * len(latin) and not SCRIPTS["zh"].search(text) else ""
    return found if found == "zh" else ""
