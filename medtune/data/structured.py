"""Rows to records, one by one or all at once; and conversations in XTuner's structured files."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from medtune.data.map_fns import NUM_HEAD_ROWS, MapFn, apply_map_fn, format_name, resolve_map_fn
from medtune.data.readers import read_data
from medtune.data.records import Conversation, Message, Preference, Record, Row, SkippedRow, to_conversation
from medtune.errors import DataError, UsageError


def read_conversations(
    data_path: str | Path,
    *,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    map_fn: str | MapFn | None = None,
    system: str = "",
) -> list[Conversation]:
    """Read a data set into validated conversations.

    Args:
        data_path, sheet, columns, encoding: as for `medtune.data.readers.read_data`.
        map_fn: a format's name or a function; None detects the format of each row.
        system: system text of conversations that bring none of their own.

    Raises:
        DataError: what is wrong, with its place; also when there is no row at all.
    """
    rows = read_data(data_path, sheet=sheet, columns=columns, encoding=encoding)
    conversations, _ = map_rows(rows, map_fn, system)
    if not conversations:
        raise DataError(f"{data_path}: no rows.")
    return conversations


def map_rows(
    rows: Iterable[Row], map_fn: str | MapFn | None = None, system: str = ""
) -> tuple[list[Conversation], MapFn | None]:
    """Map and validate rows into conversations; return them with the function that did it, None if there was no row.

    Args:
        rows: from `read_data` or `rows_of`.
        map_fn: a format's name or a function; None detects the format of each row.
        system: system text of conversations that bring none of their own.

    Raises:
        DataError: a row that does not fit, with its place; also a preference, or an answer labelled good or bad (KTO):
            the line says how to train on the good ones.
    """
    chosen, mapped = mapped_records(rows, map_fn, system)
    return [to_conversation(record) for record in mapped], chosen


def mapped_records(
    rows: Iterable[Row],
    map_fn: str | MapFn | None = None,
    system: str = "",
    skipped: Counter[str] | None = None,
    formats: Counter[str] | None = None,
) -> tuple[MapFn | None, Iterator[Record]]:
    """Map and validate rows one by one, as they are asked for.

    Args:
        rows, map_fn, system: as for `map_rows`. The first `NUM_HEAD_ROWS` are read ahead, for detection.
        skipped: counts the reasons of rows that hold nothing to learn; None makes such a row a fault.
        formats: counts the rows of each format.

    Returns:
        The map function, None if there is no row, and the records.
    """
    reader = iter(rows)
    head = list(islice(reader, NUM_HEAD_ROWS))
    chosen = resolve_map_fn(map_fn, *head) if head else None

    def records() -> Iterator[Record]:
        for row in chain(head, reader):
            if formats is not None:
                formats[format_name(chosen, row)] += 1  # type: ignore[arg-type]  # no row without it
            try:
                record = apply_map_fn(chosen, row)  # type: ignore[arg-type]  # no row without it
            except SkippedRow as reason:
                if skipped is None:
                    raise
                skipped[reason.reason] += 1
                continue
            yield with_system(record, system)

    return chosen, records()


def with_system(record: Record, system: str) -> Record:
    """The record with a system text, unless it brings one of its own or the text is empty."""
    first = (record.prompt if isinstance(record, Preference) else record.messages)[0]
    if not system or first.role == "system":
        return record
    if isinstance(record, Preference):
        return replace(record, prompt=(Message("system", system), *record.prompt))
    return replace(record, messages=(Message("system", system), *record.messages))


def has_empty_answer(record: Record) -> bool:
    """True if an answer is blank and calls no tool, or the last question has none."""
    if isinstance(record, Preference):
        return any(map(has_empty_answer, record.conversations()))
    answers = (message for message in record.messages if message.role == "assistant")
    return record.messages[-1].role != "assistant" or not all(m.content.strip() or m.tool_calls for m in answers)


def to_turns(conversation: Conversation) -> dict[str, list[dict[str, Any]]]:
    """XTuner's structure of a conversation; a question without an answer gets an empty one.

    Raises:
        DataError: it holds what that structure has no place for: tools or reasoning.

    >>> to_turns(Conversation((Message("user", "Hi"), Message("assistant", "Hello", True))))
    {'conversation': [{'system': '', 'input': 'Hi', 'output': 'Hello'}]}
    """
    messages = list(conversation.messages)
    if conversation.tools or any(m.role == "tool" or m.tool_calls or m.reasoning for m in messages):
        raise DataError(f"{conversation.origin}: XTuner's structure has no place for tools or reasoning; see `--to`.")
    system = messages.pop(0).content if messages[0].role == "system" else ""
    if messages[-1].role == "user":
        messages.append(Message("assistant", "", trained=True))
    turns: list[dict[str, Any]] = []
    question = ""
    for message in messages:
        if message.role == "user":
            question = message.content
            continue
        turn: dict[str, Any] = {"input": question, "output": message.content}
        if not message.trained:
            turn["output_with_loss"] = False
        turns.append(turn)
        question = ""
    turns[0] = {"system": system, **turns[0]}
    return {"conversation": turns}


def write_structured(files: Mapping[Path, Sequence[Conversation]], force: bool = False) -> None:
    """Write conversations in XTuner's structure: .jsonl one a line, .json as one array. All files or none.

    Args:
        files: path -> its conversations. Folders are made.
        force: replace files that exist.

    Raises:
        UsageError: a file exists, or has another suffix.
        DataError: text that UTF-8 cannot hold (half of a surrogate pair).
    """
    for path in files:
        if path.suffix.lower() not in (".json", ".jsonl"):
            raise UsageError(f"{path}: the output must end in .jsonl or .json.")
        if path.exists() and not force:
            raise UsageError(f"{path}: exists already. Give -f to replace it, or another name.")
    unfinished = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in files}
    try:
        for path, conversations in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with unfinished[path].open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(_pieces(conversations, array=path.suffix.lower() == ".json"))
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in unfinished.items():
            temporary.replace(path)
    finally:
        for temporary in unfinished.values():
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _pieces(conversations: Sequence[Conversation], array: bool) -> Iterator[str]:
    yield "[\n" if array else ""
    for index, conversation in enumerate(conversations):
        text = json.dumps(to_turns(conversation), ensure_ascii=False)
        if any("\ud800" <= char <= "\udfff" for char in text):
            raise DataError(
                f"{conversation.origin}: the text holds half of a surrogate pair, which UTF-8 has no form for."
            )
        yield text + (",\n" if array and index + 1 < len(conversations) else "\n")
    yield "]\n" if array else ""
