"""Rows to encoded rows: mapped, validated, rendered and tokenised in several processes, and kept by content.

Every process reads all rows and encodes the chunks that it is the first to claim, so nothing travels between them. A
chunk is a shard, complete when its folder is renamed; a preparation that was killed goes on with the missing ones. The
first process to lock the folder prepares and the others wait, in the same training or another one. The lock falls with
its holder, so nobody waits for a dead one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import multiprocessing
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from medtune import errors
from medtune.data import cache
from medtune.data.encode import Encoder, LeftOut
from medtune.data.kinds import Kind, conversations_of, of_kind, with_system
from medtune.data.map_fns import NUM_HEAD_ROWS, MapFn, apply_map_fn, resolve_map_fn
from medtune.data.placeholders import fill_placeholders
from medtune.data.records import Conversation, Record, Row, SkippedRow, mark_trained, to_conversation
from medtune.data.store import EncodedRows, join_folders, join_rows, open_rows, sound_rows, write_rows
from medtune.data.templates import Template, TokenizerTemplate
from medtune.errors import DataError, EnvironmentFault, MedtuneError
from medtune.files import MANIFEST, fsync, private, read_json, remove, write_json

SMALL = 4096
"""Rows that are encoded here and now: starting processes would take as long."""
ROWS_PER_SHARD = 4096
KEY_LETTERS = 32
SHARD = re.compile(r"\d{8}")
STOP = "stop"
EMPTY_ANSWER = "empty answer"
STARTED = time.time()

Source = Callable[[], Iterator[Row]]
"""Begins to read the rows; may be called more than once, unless it is read in one piece."""


@dataclass(frozen=True)
class Recipe:
    """How rows become ids."""

    tokenizer: Any
    template: Template | TokenizerTemplate
    map_fn: str | MapFn | None = None
    """A format's name, a function, or None to detect it from the first row."""
    system: str = ""
    train_on: Any = "answers"
    placeholders: Mapping[str, str] = field(default_factory=dict)
    kind: Kind = "answers"
    """What is learnt from a row; see `kinds`."""

    def for_rows(self, head: Sequence[Row]) -> Recipe:
        """The recipe with its map function found by the first rows."""
        return replace(self, map_fn=resolve_map_fn(self.map_fn, *head[:NUM_HEAD_ROWS]))

    def records(self, rows: Iterable[Row]) -> Iterator[Record | LeftOut]:
        """Map and validate rows; `map_fn` is a function. Raises DataError with the row's place."""
        for row in rows:
            try:
                record = self._record(row)
            except SkippedRow as skipped:
                yield LeftOut(skipped.reason, row.origin)
                continue
            record = fill_placeholders(with_system(record, self.system) if self.system else record, self.placeholders)
            is_empty = any(map(_has_empty_target, conversations_of(record)))
            yield LeftOut(EMPTY_ANSWER, row.origin) if is_empty else record

    def _record(self, row: Row) -> Record:
        assert callable(self.map_fn)
        record = apply_map_fn(self.map_fn, row)
        if self.kind == "answers":
            return mark_trained(to_conversation(record, row.origin), self.train_on)
        return of_kind(record, self.kind)

    def encode(self, rows: Iterable[Row]) -> Iterator[EncodedRows]:
        """Encode rows in batches, in order. Raises DataError with the row's place."""
        return Encoder(self.template, self.tokenizer).batches(self.records(rows))

    def key(self, data: Any) -> str | None:
        """The key of the result for a data set's identity, or None where something cannot be told."""
        return cache.content_key(
            data=data,
            tokenizer=cache.tokenizer_identity(self.tokenizer),
            template=cache.template_identity(self.template),
            map_fn=cache.function_identity(self.map_fn),
            settings=[self.system, self.train_on, dict(self.placeholders), self.kind],
        )


def _has_empty_target(conversation: Conversation) -> bool:
    """True if a message that the loss would be taken on is blank."""
    return any(m.trained and not m.content.strip() and not m.tool_calls for m in conversation.messages)


@dataclass(frozen=True)
class Prepared:
    """What `prepare` found or made."""

    rows: EncodedRows
    map_fn: MapFn
    folder: Path | None
    """Where it is kept; None if it is not."""


def prepare(
    read: Source,
    recipe: Recipe,
    identity: Callable[[], Any],
    *,
    in_memory: bool = False,
    overwrite: bool = False,
    num_proc: int | None = None,
) -> Prepared:
    """Encode a data set, or find it encoded.

    Args:
        read: begins to read the rows.
        recipe: how they become ids.
        identity: tells the data's content, as JSON, or None where it cannot be told; then nothing is kept.
        in_memory: keep nothing on the disk, and use this process alone.
        overwrite: redo what was prepared before this process began.
        num_proc: processes; None for one a core. The result does not depend on it.

    Raises:
        DataError: there is no row, or one is broken: the first of them, whatever the number of processes.
        EnvironmentFault: a process was killed, or the disk is full.
    """
    rows = read()
    head = list(islice(rows, SMALL + 1))
    if not head:
        raise DataError("the data set has no rows.")
    found = recipe.for_rows(head)
    map_fn: Any = found.map_fn
    if in_memory or len(head) <= SMALL:
        return Prepared(join_rows(found.encode(chain(head, rows))), map_fn, None)
    del head, rows
    num_proc = num_proc or len(os.sched_getaffinity(0))
    key = recipe.key(identity())
    with private():
        if key is None:
            return Prepared(_prepared_once(read, found, num_proc), map_fn, None)
        folder = cache.cache_folder() / key[:KEY_LETTERS]
        encoded = _kept(folder, read, found, overwrite, num_proc)
        return Prepared(encoded, map_fn, folder if folder.is_dir() else None)


def _prepared_once(read: Source, recipe: Recipe, num_proc: int) -> EncodedRows:
    """Prepare for this process alone; the files have no name any more when it has opened them."""
    with tempfile.TemporaryDirectory(dir=cache.cache_folder()) as folder:
        _make(Path(folder) / "rows", read, recipe, num_proc)
        return open_rows(Path(folder) / "rows")


def _kept(folder: Path, read: Source, recipe: Recipe, overwrite: bool, num_proc: int) -> EncodedRows:
    def ready() -> EncodedRows | None:
        with contextlib.suppress(OSError):
            if not overwrite or (folder / MANIFEST).stat().st_mtime >= STARTED:
                return _complete(folder, recipe)
        return None

    if (rows := ready()) is not None:
        return rows
    with cache.locked(folder.with_suffix(".lock")) as alone:
        if not alone:
            return _prepared_once(read, recipe, num_proc)
        if (rows := ready()) is None:
            _make(folder, read, recipe, num_proc)
            rows = open_rows(folder)
    return rows


# ---------------------------------------------------------------- the folder


def _make(folder: Path, read: Source, recipe: Recipe, num_proc: int) -> None:
    """Prepare into a folder that appears when it is complete; what an earlier try left is used."""
    partial = folder.with_suffix(".partial")
    shards = partial / "shards"
    if _complete(partial, recipe) is None:
        if not cache.is_own(partial) or not partial.is_dir():
            remove(partial)
        shards.mkdir(parents=True, exist_ok=True)
        left = [found for found in partial.iterdir() if found != shards]
        num_ids = _num_ids(recipe)
        left += [f for f in shards.iterdir() if not (SHARD.fullmatch(f.name) and sound_rows(f, num_ids))]
        for found in left:
            remove(found)
        num_rows = _Workers(shards, read, recipe, num_proc).run()
        join_folders(sorted(shards.iterdir()), partial)
        unfinished = partial / f"{MANIFEST}.part"
        write_json(unfinished, {"rows": num_rows})
        fsync(unfinished)
        unfinished.rename(partial / MANIFEST)
    shutil.rmtree(shards, ignore_errors=True)
    remove(folder)
    partial.rename(folder)
    fsync(folder.parent)


def _complete(folder: Path, recipe: Recipe) -> EncodedRows | None:
    """The rows of a folder that is done; None for one that is not, is damaged, or is not all this user's."""
    if not (folder / MANIFEST).is_file() or not cache.is_own(folder):
        return None
    rows = sound_rows(folder, _num_ids(recipe))
    with contextlib.suppress(MedtuneError):
        if rows and read_json(folder / MANIFEST).get("rows") == len(rows):
            return rows
    return None


def _num_ids(recipe: Recipe) -> int:
    """One more than the largest token id."""
    return 1 + max(recipe.tokenizer.get_vocab().values())


# ---------------------------------------------------------------- processes


class _Workers:
    """Processes that encode the chunks of a data set into shards."""

    def __init__(self, shards: Path, read: Source, recipe: Recipe, num_proc: int) -> None:
        self.shards = shards
        self.read = read
        self.recipe = recipe
        self.num_proc = num_proc
        self.parent = os.getpid()

    def run(self) -> int:
        """Encode all rows; return their number. Raises the fault of the first row that has one."""
        running: dict[Any, Any] = {}  # receiver -> process
        faults: list[list[Any]] = []
        totals: set[int] = set()
        context = multiprocessing.get_context("fork")
        try:
            with _silent_fork():
                for _ in range(self.num_proc):
                    receiver, sender = context.Pipe(duplex=False)
                    process = context.Process(target=self._work, args=(sender,), daemon=True)
                    process.start()
                    sender.close()
                    running[receiver] = process
            with _progress() as advance:
                while running:
                    ready: list[Any] = wait(list(running))
                    for receiver in ready:
                        try:
                            told = json.loads(receiver.recv_bytes())
                        except EOFError:
                            _check_end(running.pop(receiver))
                            continue
                        advance(told.get("rows", 0))
                        faults += [told["fault"]] if "fault" in told else []
                        totals |= {told["total"]} if "total" in told else set()
        finally:
            for process in running.values():
                process.terminate()
            for process in running.values():
                process.join()
        if faults:
            _, _, kind, message = min(faults)
            raise getattr(errors, kind)(message)
        if len(totals) != 1:
            raise DataError("the data changed while it was read; start again when nobody writes to it.")
        return totals.pop()

    # -- in the process -------------------------------------------------------------------------------------------

    def _work(self, sender: Connection) -> None:
        """Encode chunks until there are none, telling the parent; a fault's chunk is told with it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.number, self.claimed = 0, False
        try:
            total = self._encode_chunks(sender)
            if total is not None:
                sender.send_bytes(json.dumps({"total": total}).encode())
        except BaseException as fault:
            (self.shards / STOP).touch()
            kind, message = _told(fault)
            sender.send_bytes(json.dumps({"fault": [self.number, not self.claimed, kind, message]}).encode())

    def _encode_chunks(self, sender: Connection) -> int | None:
        """Number of rows there are, or None if another process met a fault. Earlier chunks are claimed by then."""
        rows = self.read()
        total = 0
        gc.freeze()
        gc.disable()  # a row leaves no cycles behind, and looking for them takes a tenth of the time
        while os.getppid() == self.parent and not (self.shards / STOP).exists():
            part = self.shards / f"{self.number:08d}.part"
            self.claimed = self._claim(part)
            counted = _Counted(islice(rows, ROWS_PER_SHARD))
            if self.claimed:
                write_rows(part, self.recipe.encode(counted))
                gc.collect()
            for _ in counted:
                pass
            if self.claimed and counted.count:
                part.rename(part.with_suffix(""))
                sender.send_bytes(json.dumps({"rows": counted.count}).encode())
            elif self.claimed:
                remove(part)
            total += counted.count
            if counted.count < ROWS_PER_SHARD:
                return total
            self.number += 1
        return None

    def _claim(self, part: Path) -> bool:
        """Whether a chunk is this process's to encode: it is not done, and no other has begun it."""
        try:
            part.mkdir()
        except FileExistsError:
            return False
        if part.with_suffix("").exists():  # done; looked at after the claim, which the rename gives up
            part.rmdir()
            return False
        return True


class _Counted:
    """An iterator that counts."""

    def __init__(self, items: Iterator[Row]) -> None:
        self.items = items
        self.count = 0

    def __iter__(self) -> Iterator[Row]:
        return self

    def __next__(self) -> Row:
        item = next(self.items)
        self.count += 1
        return item


def _told(fault: BaseException) -> tuple[str, str]:
    """A fault as the name of one of our errors, and its message. Only our own messages are known to quote no row."""
    if isinstance(fault, MedtuneError):
        own = next(kind.__name__ for kind in type(fault).__mro__ if hasattr(errors, kind.__name__))
        return own, str(fault)
    if isinstance(fault, MemoryError):
        return "EnvironmentFault", "out of memory while preparing the data; set num_proc to fewer processes."
    if isinstance(fault, OSError):
        return "EnvironmentFault", f"preparing the data: {fault.filename or 'a file'}: {fault.strerror}."
    frame = traceback.extract_tb(fault.__traceback__)[-1]
    place = f"{Path(frame.filename).name}:{frame.lineno}"
    return "MedtuneError", f"preparing the data failed with {type(fault).__name__} at {place}; a fault of medtune."


def _check_end(process: Any) -> None:
    """Raise EnvironmentFault for a process that was killed."""
    process.join()
    if process.exitcode:
        raise EnvironmentFault(
            f"a process that prepares the data ended with {process.exitcode}; if the machine ran out of memory, set "
            "num_proc to fewer. What is done is kept, and the same command goes on."
        )


@contextlib.contextmanager
def _silent_fork() -> Iterator[None]:
    """Keep the tokenizers library from warning of threads that our processes do not use."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int], Any]]:
    from tqdm import tqdm

    logging.getLogger(__name__).info("preparing the data")
    with tqdm(desc="preparing", unit=" rows", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        yield bar.update
