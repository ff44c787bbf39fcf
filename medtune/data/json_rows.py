"""JSON of every form, one row at a time: lines, an array, an object keyed by id, an array in a wrapper.

The form is told from the content, never from the suffix: published sets hold JSON arrays named .jsonl and JSON lines
named .json or .txt. An array is never held whole, so a file larger than memory reads.

What cannot be read is a `DataError`: yielded where reading can go on after it, raised where it cannot.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, BinaryIO

from medtune.data.decoding import BLOCK, bounded_lines, codec_of, detect, head_of, open_text, too_long, wrong_encoding
from medtune.data.json_values import ANY, SPACE, Scanner, decoded, invalid, lone_surrogate
from medtune.data.records import Row
from medtune.errors import DataError
from medtune.limits import ROW_BYTES

LINE_ENDS = "\r\n"
KEYED = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\{')
WRAPPERS = ("data", "rows", "records", "RECORDS", "examples", "instances", "items", "samples", "train")
REGISTRY = {"file_name", "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url"}
TURNS = ({"role", "content"}, {"from", "value"})  # an array of these is one dialogue, not many rows
MOST_TURNS = 10_000


def read_json(file: BinaryIO, name: str, encoding: str | None) -> Iterator[Row | DataError]:
    """Yield the rows of a JSON file; origins are "a.jsonl:12", the line, or "a.json[12]", counted from 0.

    An array of turns (`role` and `content`, or `from` and `value`) is one row, a dialogue. The values of an object
    keyed by id are the rows; where the ids are numbers and the values plain, the rows are `{"id", "value"}`.

    Raises:
        DataError: broken JSON, with its line and column, an encoding that does not fit, or a registry of data sets.
    """
    codec = codec_of(file, encoding)
    head = head_of(file, codec, BLOCK)
    form = _form(head)
    if form == "object" and "\n" not in head.strip() and _goes_on(file, name, codec):
        form = "lines"
    if form == "lines":
        yield from _lines(file, name, codec)
        return
    with open_text(file, name, codec) as text:
        wrapper = None
        if form == "object":
            form, wrapper = _object_form(Scanner(text, name))
            text.seek(0)
        scanner = Scanner(text, name)
        if form == "row":
            yield as_row(scanner.value(), f"{name}[0]")
        elif form == "array":
            yield from _array_rows(scanner, name, wrapper)
        else:
            yield from _keyed_rows(scanner, name, form)
        scanner.end()


def _form(head: str) -> str:
    """Tell "array", "object" or "lines" from the first million bytes. One row on one line is lines."""
    start = SPACE.match(head).end()  # type: ignore[union-attr]
    if head[start : start + 1] != "{":
        return "array" if head[start : start + 1] == "[" else "lines"
    try:
        value, end = ANY.raw_decode(head, start)
    except (ValueError, RecursionError):
        first, _, rest = head[start:].partition("\n")
        if not rest.strip():  # one line, longer than this or broken
            return "object" if KEYED.match(head, start) else "lines"
        return "object" if not first.rstrip().endswith("}") and not rest.lstrip().startswith("{") else "lines"
    if "\n" in head[start:end]:
        return "object"
    return "object" if not head[end:].strip() and _holds_rows(value) else "lines"


def _goes_on(file: BinaryIO, name: str, codec: str) -> bool:
    """Tell whether anything follows the first line, which may be long."""
    with open_text(file, name, codec) as text:
        pieces = iter(partial(text.readline, BLOCK), "")
        return any(piece.endswith("\n") for piece in pieces) and any(not piece.isspace() for piece in pieces)


def _holds_rows(value: dict[str, Any]) -> bool:
    """Tell an object of rows on one line, by the rules of `_object_form`, from a row."""
    first = next(iter(value), "")
    wrapped = any(key in WRAPPERS and isinstance(rows, list) and rows for key, rows in value.items())
    return wrapped or (len(value) > 1 and first.isdigit()) or (first != "" and isinstance(value[first], dict))


def _lines(file: BinaryIO, name: str, codec: str) -> Iterator[Row | DataError]:
    if codec != "utf-8-sig":
        with open_text(file, name, codec) as text:
            for number, line in enumerate(bounded_lines(text, name), 1):
                if line and not line.isspace():
                    yield _line(line, f"{name}:{number}")
        return
    file.seek(0)
    for number, raw in enumerate(iter(partial(file.readline, ROW_BYTES + 1), b""), 1):
        if raw.isspace():
            continue
        if len(raw) > ROW_BYTES:
            raise too_long(f"{name}:{number}")
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as fault:
            after = file.tell()
            if detect(file) not in (None, codec):
                raise wrong_encoding(file, name, codec) from None
            file.seek(after)
            place = f"{name}:{number}: not utf-8 text: the byte at offset {after - len(raw) + fault.start}"
            yield DataError(f"{place} does not decode. Repair that byte, or name the file's encoding.")
        else:
            yield _line(line, f"{name}:{number}")


def _line(line: str, origin: str) -> Row | DataError:
    try:
        value = decoded(line)
    except json.JSONDecodeError as fault:
        return invalid(
            f"{origin}:{min(fault.pos, len(line.rstrip(LINE_ENDS))) + 1}", f"{fault.msg}. Fix that place of the file"
        )
    except (ValueError, RecursionError) as fault:
        return invalid(origin, str(fault))
    if lone_surrogate(value, line):
        return invalid(origin, "it escapes half a character, a lone surrogate")
    return as_row(value, origin)


def as_row(value: Any, origin: str) -> Row | DataError:
    """Make a value read from a file a row: text is `{"text": ...}`; a number or a list is a fault."""
    if type(value) is dict:  # nearly always, and faster told than a Mapping
        return Row(value, origin)
    if isinstance(value, str):
        value = {"text": value}
    if isinstance(value, Mapping):
        return Row(value, origin)
    if isinstance(value, (Row, DataError)):
        return value
    return DataError(f"{origin}: wanted an object or text, got a {type(value).__name__}.")


def _object_form(scanner: Scanner) -> tuple[str, str | None]:
    """Tell what an object is: one "row", "keyed" rows, "ids" with plain values, or an "array" under the key given."""
    objects, numbers, plain, registry, count = True, True, True, True, 0
    for key in scanner.members():
        count += 1
        if key in WRAPPERS and plain and scanner.peek() == "[":
            scanner.take("[")
            if scanner.peek() == "{":
                return "array", key
            return "row", None
        value = scanner.value()
        plain = plain and not isinstance(value, (list, dict))
        objects = objects and isinstance(value, (dict, DataError))
        numbers = numbers and key.isdigit()
        registry = registry and isinstance(value, dict) and not REGISTRY.isdisjoint(value)
        if not objects and not numbers and not plain:
            return "row", None
    if registry and count:
        raise DataError(
            f"{scanner.name}: a registry of {count} data sets, not data. Name one of them: data_path='...' with "
            "dataset_info=... beside it."
        )
    if objects and count:
        return "keyed", None
    return ("ids" if numbers and count > 1 else "row"), None


def _array_rows(scanner: Scanner, name: str, wrapper: str | None) -> Iterator[Row | DataError]:
    if wrapper is not None:
        for key in scanner.members():
            if key == wrapper:
                yield from _array_rows(scanner, name, None)
            elif isinstance(scanner.value(), (list, dict)):
                raise scanner.fault(f"two lists or objects beside each other, one of them {wrapper!r}")
        return
    elements = scanner.elements()
    first = next(elements, elements)
    if isinstance(first, dict) and any(keys <= first.keys() for keys in TURNS):
        turns = [first, *itertools.islice(elements, MOST_TURNS)]
        if len(turns) > MOST_TURNS:
            raise DataError(
                f"{name}: an array of over {MOST_TURNS} turns; wanted one dialogue, or rows with dialogues."
            )
        fault = next((turn for turn in turns if isinstance(turn, DataError)), None)
        yield fault or Row({"messages" if "role" in first else "conversations": turns}, name)
        return
    if first is not elements:
        for index, value in enumerate(itertools.chain([first], elements)):
            yield as_row(value, f"{name}[{index}]")


def _keyed_rows(scanner: Scanner, name: str, form: str) -> Iterator[Row | DataError]:
    seen: set[str] = set()
    for index, key in enumerate(scanner.members()):
        origin, value = f"{name}[{index}]", scanner.value()
        if key in seen:
            yield DataError(f"{origin}: the id of this row stands a second time in the file.")
        elif form == "ids" and not isinstance(value, DataError):
            yield Row({"id": key, "value": value}, origin)
        else:
            yield as_row(value, origin)
        seen.add(key)
