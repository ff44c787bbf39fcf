"""JSON values, strictly: a key twice or NaN is refused; one after the other from a text too large to hold."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from medtune.data.decoding import BLOCK, too_long
from medtune.data.records import shown_names
from medtune.errors import DataError
from medtune.limits import ROW_BYTES

SPACE = re.compile(r"[ \t\n\r]*")
COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
LONGEST_EXPONENT = 2  # characters before the digits that make "1" of a block into 1e+5 or 1.5
LONGEST_TOKEN = 12  # characters that a number, a name or an escape at the end of a block may lack


class Refused(ValueError):
    """Valid to Python's parser, but no row to train on: NaN, a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = shown_names({key for key in value if keys.count(key) > 1})
        raise Refused(f"an object has {', '.join(map(repr, twice)) or 'a key'} more than once")
    return value


def _constant(constant: str) -> NoReturn:
    raise Refused(f"it holds {constant}")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
# The same without its checks of what stands around the value: half the time of a short row.
SCAN: Callable[[str, int], tuple[Any, int]] = DECODER.scan_once  # type: ignore[attr-defined]
ANY = json.JSONDecoder(parse_int=len, parse_float=len, parse_constant=len)  # finds where a refused value ends


def decoded(line: str) -> Any:
    """What `DECODER.decode` gives; half the time for what begins and ends with the line."""
    try:
        value, end = SCAN(line, 0)
    except StopIteration:  # white space first, or no value
        return DECODER.decode(line)
    return value if end == len(line) or line[end:].isspace() else DECODER.decode(line)


def invalid(place: str, what: str) -> DataError:
    """The fault of a value at a place."""
    return DataError(f"{place}: not valid JSON: {what}.")


def lone_surrogate(value: Any, text: str, start: int = 0, end: int = sys.maxsize) -> bool:
    """Tell an escape such as \\ud800 without its other half: text that no tokenizer and no file takes."""
    if text.find("\\u", start, end) < 0 or (text.find("\\ud", start, end) < 0 and text.find("\\uD", start, end) < 0):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


class Scanner:
    """JSON values of a text, taken one at a time; holds one block, or one value where that is longer.

    Args:
        text: at its start.
        name: stands for the file in faults, which are "a.json:12:5: ...", line and column from 1.
    """

    def __init__(self, text: TextIO, name: str) -> None:
        self.text, self.name = text, name
        self.buffer, self.pos, self.ended = "", 0, False
        self.line, self.column = 1, 1  # of the buffer's first character

    def peek(self) -> str:
        """Pass over white space and return the character after it; "" at the end."""
        while True:
            self.pos = SPACE.match(self.buffer, self.pos).end()  # type: ignore[union-attr]
            if self.pos < len(self.buffer):
                return self.buffer[self.pos]
            if self.ended:
                return ""
            self._more()

    def take(self, *wanted: str) -> str:
        """Pass over one of these characters and return it."""
        char = self.peek()
        if char not in wanted or not char:
            raise self.fault(f"Expecting {' or '.join(map(repr, wanted))}")
        self.pos += 1
        return char

    def value(self) -> Any:
        """The value that begins here; a `DataError` for one that is complete but refused."""
        self.peek()
        try:
            value, end = SCAN(self.buffer, self.pos)
        except (ValueError, StopIteration, RecursionError):
            return self._value()
        if end + LONGEST_EXPONENT >= len(self.buffer) or lone_surrogate(value, self.buffer, self.pos, end):
            return self._value()
        self.pos = end
        return value

    def _value(self) -> Any:
        """The same, for a value that goes on after the buffer, is broken or refused."""
        while True:
            decoder, refused = DECODER, None
            try:
                try:
                    value, end = DECODER.raw_decode(self.buffer, self.pos)
                except Refused as reason:
                    decoder, refused = ANY, invalid(":".join(map(str, self.place())), str(reason))
                    value, end = decoder.raw_decode(self.buffer, self.pos)
            except json.JSONDecodeError as fault:
                if self.ended or not self._cut(fault):
                    raise self.fault(fault.msg, fault.pos) from None
            except (ValueError, RecursionError) as fault:
                raise self.fault(str(fault)) from None
            else:
                if not isinstance(value, (int, float)) or end + LONGEST_EXPONENT < len(self.buffer) or self.ended:
                    break
            self._more()
        if refused is None and lone_surrogate(value, self.buffer, self.pos, end):
            refused = invalid(":".join(map(str, self.place())), "it escapes half a character, a lone surrogate")
        self.pos = end
        return refused or value

    def members(self) -> Iterator[str]:
        """Keys of the object that begins here; after each, the caller takes its value."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            key = self.value() if self.peek() == '"' else None
            if not isinstance(key, str):
                raise self.fault("Expecting property name enclosed in double quotes")
            self.take(":")
            yield key
            if self.take(",", "}") == "}":
                return

    def elements(self) -> Iterator[Any]:
        """Values of the array that begins here."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            comma = COMMA.match(self.buffer, self.pos)
            if comma and comma.end() < len(self.buffer):
                self.pos = comma.end()
            elif self.take(",", "]") == "]":
                return

    def end(self) -> None:
        """Check that nothing follows."""
        if self.peek():
            raise self.fault("Extra data")

    def place(self, pos: int | None = None) -> tuple[str, int, int]:
        """File, line and column of a position in the buffer, by default the present one."""
        before = self.buffer[: self.pos if pos is None else pos]
        newlines = before.count("\n")
        column = len(before) - before.rfind("\n") if newlines else self.column + len(before)
        return self.name, self.line + newlines, column

    def fault(self, what: str, pos: int | None = None) -> DataError:
        """The fault of JSON that is broken at a position."""
        return invalid(":".join(map(str, self.place(pos))), f"{what}. Fix that place of the file")

    def _cut(self, fault: json.JSONDecodeError) -> bool:
        """Tell a value that goes on after the buffer from one that is broken."""
        return fault.msg.startswith("Unterminated string") or fault.pos + LONGEST_TOKEN > len(self.buffer)

    def _more(self) -> None:
        """Drop what is done with; read a block, or as much as waits, so that a long value is tried few times."""
        waiting = len(self.buffer) - self.pos
        if waiting > ROW_BYTES:
            raise too_long(":".join(map(str, self.place())))
        _, self.line, self.column = self.place()
        block = self.text.read(max(BLOCK, waiting))
        self.buffer, self.pos, self.ended = self.buffer[self.pos :] + block, 0, not block
