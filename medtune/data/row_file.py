"""Files of rows as JSON: whole or not at all, and private where they hold what a check has put aside."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medtune.errors import DataError, UsageError

SUFFIXES = (".jsonl", ".json")


def require_new(path: Path, force: bool, suffixes: tuple[str, ...] = SUFFIXES) -> None:
    """Check that a file may be written.

    Raises:
        UsageError: another suffix, a folder, or a file that exists and is not to be replaced.
    """
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{path}: the output must end in {' or '.join(suffixes)}.")
    if path.is_dir() or (path.exists() and not force):
        raise UsageError(f"{path}: exists already. Give -f to replace it, or another name.")


@contextmanager
def new_file(path: Path, private: bool = False) -> Iterator[Path]:
    """A temporary file beside `path` that becomes it when the block ends well, and is removed when it does not.

    Args:
        path: its folder is made.
        private: only its owner may read it (0600).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666))
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def new_rows(path: Path, force: bool = False, private: bool = False) -> Iterator[Callable[[Any], None]]:
    """Write rows one by one: .jsonl one a line, .json as one array. All of them, or no file.

    Raises:
        UsageError: from `require_new`.
        DataError: a row that JSON or UTF-8 has no form for.
    """
    require_new(path, force)
    array = path.suffix.lower() == ".json"
    with new_file(path, private) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        between = "[\n" if array else ""

        def write(fields: Any) -> None:
            nonlocal between
            file.write(between + _line(fields))
            between = ",\n" if array else "\n"

        yield write
        file.write("\n" if between not in ("", "[\n") else between)
        file.write("]\n" if array else "")
        file.flush()
        os.fsync(file.fileno())


def _line(fields: Any) -> str:
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=_plain)
        text.encode("utf-8")
    except (ValueError, TypeError, RecursionError):  # `from None`: the original may quote the row
        raise DataError(
            "a row holds what JSON has no form for: NaN, bytes, half of a surrogate pair, or nesting without end. "
            "`medtune data check` tells where."
        ) from None
    return text


def _plain(value: Any) -> Any:
    """A value of a table or a parquet file in JSON."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        raise TypeError
    return str(value)
