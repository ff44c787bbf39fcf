"""Encoded rows as flat arrays, in memory or as the files of a folder, and the samples that are cut from them.

A folder holds one file for each array, so a set of several folders is their files, one behind the other. They are
read by memory mapping: what a sample needs is read when it is asked for.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medtune.errors import MedtuneError, printable

IGNORE_INDEX = -100
QUESTION_BYTES = 16
TOKENS_AT_ONCE = 1 << 22
"""Tokens that a pass over all samples holds in memory."""

# dtype and further axes of each array of `EncodedRows`
ARRAYS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "input_ids": (np.dtype(np.int32), ()),
    "trained": (np.dtype(np.bool_), ()),
    "lengths": (np.dtype(np.int64), ()),
    "num_trained": (np.dtype(np.int64), ()),
    "num_parts": (np.dtype(np.int64), ()),
    "special": (np.dtype(np.bool_), ()),
    "unfilled": (np.dtype(np.bool_), ()),
    "good": (np.dtype(np.bool_), ()),
    "questions": (np.dtype(np.uint8), (QUESTION_BYTES,)),
    "origins": (np.dtype(np.uint8), ()),
    "origin_lengths": (np.dtype(np.int64), ()),
    "reasons": (np.dtype(np.uint8), ()),
    "reason_lengths": (np.dtype(np.int64), ()),
}
COUNTS = ("lengths", "num_trained", "num_parts", "origin_lengths", "reason_lengths")


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """n rows of a data set in p parts, whole, before any is left out or cut.

    A row is one part, unless the template rewrites earlier turns (`Template.render_rows`), and none if it is left out.
    """

    input_ids: np.ndarray
    """(total,) int32: token ids, end to end."""
    trained: np.ndarray
    """(total,) bool: the tokens the loss is taken on. Never a part's first: nothing predicts it."""
    lengths: np.ndarray
    """(p,) int64 tokens."""
    num_trained: np.ndarray
    """(p,) int64 trained tokens."""
    num_parts: np.ndarray
    """(n,) int64."""
    special: np.ndarray
    """(n,) bool: the text holds a control token's text, which was encoded as ordinary text."""
    unfilled: np.ndarray
    """(n,) bool: the text leaves a placeholder open, such as `<NAME>`."""
    good: np.ndarray
    """(n,) bool: of rows labelled for KTO, those whose answer is a good one; False of all others."""
    questions: np.ndarray
    """(n, 16) uint8: digest of the question, equal for those that a split keeps on one side."""
    origins: np.ndarray
    """(bytes,) uint8: UTF-8 of the places the rows stand at, end to end."""
    origin_lengths: np.ndarray
    """(n,) int64 bytes."""
    reasons: np.ndarray
    """(bytes,) uint8: UTF-8 of why rows are left out, end to end."""
    reason_lengths: np.ndarray
    """(n,) int64 bytes; 0 for a row that is not left out."""

    def __len__(self) -> int:
        return len(self.num_parts)

    @cached_property
    def starts(self) -> np.ndarray:
        """(p + 1,) int64: where each part's tokens begin, and their number."""
        return _ends(self.lengths)

    @cached_property
    def first_parts(self) -> np.ndarray:
        """(n + 1,) int64: the first part of each row, and the number of parts."""
        return _ends(self.num_parts)

    @cached_property
    def _origin_starts(self) -> np.ndarray:
        return _ends(self.origin_lengths)

    @cached_property
    def _reason_starts(self) -> np.ndarray:
        return _ends(self.reason_lengths)

    def origin(self, row: int) -> str:
        """Where a row stands: "train.jsonl:12"."""
        return (
            self.origins[self._origin_starts[row] : self._origin_starts[row + 1]].tobytes().decode("utf-8", "replace")
        )

    def reason(self, row: int) -> str:
        """Why a row is left out, or ""."""
        return (
            self.reasons[self._reason_starts[row] : self._reason_starts[row + 1]].tobytes().decode("utf-8", "replace")
        )

    def whole(self) -> bool:
        """True if the arrays are of the sizes that they give each other."""
        sizes = {name: len(getattr(self, name)) for name in ARRAYS}
        of_rows = ("num_parts", "special", "unfilled", "good", "questions", "origin_lengths", "reason_lengths")
        sums = {
            "lengths": ["input_ids", "trained"],
            "num_parts": ["lengths", "num_trained"],
            "origin_lengths": ["origins"],
            "reason_lengths": ["reasons"],
        }
        told = {name: int(getattr(self, name).sum()) for name in sums}
        return len({sizes[name] for name in of_rows}) == 1 and all(
            sizes[name] == told[key] for key, names in sums.items() for name in names
        )

    def sound(self, num_tokens: int) -> bool:
        """True if the arrays fit each other and hold what encoding may have made, with ids below `num_tokens`.

        A folder that a disk, or somebody else, has changed may hold anything, and ids are taken as places in a table.
        """
        if not self.whole():
            return False
        tops = dict.fromkeys(COUNTS, len(self.input_ids) + len(self.origins) + len(self.reasons))
        tops |= {name: 1 for name, (dtype, _) in ARRAYS.items() if dtype == np.bool_}
        tops["input_ids"] = num_tokens - 1
        if not all(_is_within(getattr(self, name), top) for name, top in tops.items()):
            return False
        if (self.num_trained > self.lengths).any() or int(self.num_trained.sum()) != int(
            np.count_nonzero(self.trained)
        ):
            return False
        try:
            texts = [self.origins.tobytes().decode(), self.reasons.tobytes().decode()]
        except UnicodeDecodeError:
            return False
        return all(printable(text) == text for text in texts)


@dataclass(frozen=True, eq=False)
class EncodedSamples:
    """n samples, each a stretch of one row's tokens."""

    rows: EncodedRows
    row: np.ndarray
    """(n,) int64: the row that each is of."""
    starts: np.ndarray
    """(n,) int64: where it begins in the tokens of `rows`."""
    lengths: np.ndarray
    """(n,) int64 tokens."""
    num_trained: np.ndarray
    """(n,) int64 trained tokens. A sample's first is never one: nothing predicts it."""

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """`input_ids` (length,) int32, `labels` (length,) int64 with -100 where untrained, and `origin`."""
        i = range(len(self))[i]
        part = slice(int(self.starts[i]), int(self.starts[i] + self.lengths[i]))
        ids = np.array(self.rows.input_ids[part])
        labels = np.where(self.rows.trained[part], ids, IGNORE_INDEX).astype(np.int64)
        labels[:1] = IGNORE_INDEX
        return {"input_ids": ids, "labels": labels, "origin": self.origin(i)}

    def origin(self, i: int) -> str:
        """Where sample i comes from."""
        return self.rows.origin(int(self.row[i]))

    @property
    def origins(self) -> list[str]:
        """Where each sample comes from, in a list of its own."""
        return [self.rows.origin(row) for row in self.row.tolist()]

    @property
    def offsets(self) -> np.ndarray:
        """(n + 1,) int64: where each sample begins once they lie end to end, and the number of tokens."""
        return _ends(self.lengths)

    @property
    def input_ids(self) -> np.ndarray:
        """(total,) int32: the ids of all samples, end to end, in a copy of their own."""
        return np.concatenate([np.empty(0, np.int32), *self.pieces("input_ids")])

    @property
    def trained(self) -> np.ndarray:
        """(total,) bool: the mask of all samples, end to end, in a copy of their own."""
        return np.concatenate([np.empty(0, np.bool_), *self.pieces("trained")])

    def pieces(self, name: str) -> Iterator[np.ndarray]:
        """`input_ids` or `trained` of all samples, end to end, in pieces that fit into memory."""
        flat = getattr(self.rows, name)
        offsets = self.offsets
        first = 0
        while first < len(self):
            last = max(int(np.searchsorted(offsets, offsets[first] + TOKENS_AT_ONCE, "right")) - 1, first + 1)
            lengths = self.lengths[first:last]
            shift = np.repeat(self.starts[first:last] - (offsets[first:last] - offsets[first]), lengths)
            piece = flat[np.arange(len(shift)) + shift]
            if name == "trained":
                piece[offsets[first:last] - offsets[first]] = False
            yield piece
            first = last


def _is_within(numbers: np.ndarray, top: int) -> bool:
    """True if all are from 0 to `top`; a bool is a byte, which may hold more."""
    numbers = numbers.view(np.uint8) if numbers.dtype == np.bool_ else numbers
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() <= top)


def _ends(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def join_rows(batches: Iterable[EncodedRows]) -> EncodedRows:
    """Batches of rows as one, in memory."""
    every = list(batches)
    empty = {name: np.empty((0, *axes), dtype) for name, (dtype, axes) in ARRAYS.items()}
    return EncodedRows(**{name: np.concatenate([empty[name], *(getattr(b, name) for b in every)]) for name in ARRAYS})


# ---------------------------------------------------------------- files


def write_rows(folder: Path, batches: Iterable[EncodedRows]) -> tuple[int, int]:
    """Write batches of rows into a folder as they come. Returns the numbers of rows and of tokens."""
    num_rows = num_tokens = 0
    files = {field.name: (folder / field.name).open("wb") for field in fields(EncodedRows)}
    try:
        for batch in batches:
            for name, file in files.items():
                file.write(np.ascontiguousarray(getattr(batch, name)).data)
            num_rows += len(batch)
            num_tokens += len(batch.input_ids)
    finally:
        for file in files.values():
            file.close()
    return num_rows, num_tokens


def join_folders(folders: Sequence[Path], into: Path) -> None:
    """Write the rows of several folders, one behind the other, as those of one folder, and push them to the disk."""
    for name in ARRAYS:
        with (into / name).open("wb") as target:
            for folder in folders:
                with (folder / name).open("rb") as source:
                    while os.sendfile(target.fileno(), source.fileno(), None, 1 << 30):
                        pass
            os.fsync(target.fileno())


def open_rows(folder: Path) -> EncodedRows:
    """Map a folder's rows into memory.

    Raises:
        MedtuneError: a file is missing or of another size than the others say.
    """
    arrays = {}
    for name, (dtype, axes) in ARRAYS.items():
        file = folder / name
        try:
            size = file.stat().st_size
        except OSError as fault:
            raise MedtuneError(f"{file}: not readable ({fault.strerror}); remove its folder.") from None
        nbytes = dtype.itemsize * int(np.prod(axes, dtype=int))
        shape = (size // nbytes, *axes)
        arrays[name] = np.memmap(file, dtype, "r", shape=shape) if size >= nbytes else np.empty((0, *axes), dtype)
    rows = EncodedRows(**arrays)
    if not rows.whole():
        raise MedtuneError(f"{folder}: its files do not fit each other; remove it.")
    return rows


def sound_rows(folder: Path, num_tokens: int) -> EncodedRows | None:
    """The same, or None for a folder that is missing or damaged (see `EncodedRows.sound`)."""
    with contextlib.suppress(MedtuneError, OSError):
        rows = open_rows(folder)
        return rows if rows.sound(num_tokens) else None
    return None
