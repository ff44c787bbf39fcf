"""Weights on disk: safetensors files read by offset and written as a stream; no model is built or held in memory.

The format (https://github.com/huggingface/safetensors#format): 8 bytes, the header's length N, little endian; N bytes
of JSON, `{name: {"dtype", "shape", "data_offsets": [start, end]}}` and an optional `__metadata__`; then the data,
without holes. Torch is imported only where numbers are converted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medtune.errors import ModelError, UsageError
from medtune.files import write_json

if TYPE_CHECKING:
    import torch

ITEM_SIZES = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2}
ITEM_SIZES |= {"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
TORCH_NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
CHUNK = 8 << 20  # bytes moved at once
BLOCK = 4 << 20  # elements converted at once: 16 MiB in fp32, whatever the size of the tensor

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class StoredTensor(NamedTuple):
    """A tensor that lies in a safetensors file."""

    name: str
    dtype: str
    """As the format writes it: "BF16", "F32", ..."""
    shape: tuple[int, ...]
    file: Path
    start: int
    """Byte offset in the file."""
    nbytes: int
    ranges: tuple[tuple[int, int], ...] = ()
    """(start, nbytes) in the file, in order, of a tensor that lies there in several pieces; empty: in one."""
    unit_rows: bool = False
    """True if each row is to be divided by its norm as it is read."""


class NewTensor(NamedTuple):
    """A tensor to be written: `chunks()` yields its bytes in order, at the moment they are written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytearray | memoryview]]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * ITEM_SIZES[self.dtype]


def parse_size(text: str) -> int:
    """Bytes in "2GB" (10**9 each, as in transformers), "500 MB" or "1.5GiB". Raises UsageError."""
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)\s*", str(text), re.IGNORECASE)
    size = int(float(match[1]) * units[match[2].upper()]) if match else 0
    if size <= 0:
        raise UsageError(f"--max-shard-size: wanted a size such as 2GB or 500MB, got {text!r}.")
    return size


def read_header(file: Path) -> list[StoredTensor]:
    """List the tensors of one safetensors file in the order of their bytes, without reading those.

    Raises:
        ModelError: the file is missing, cut short or not safetensors; the message names it.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ModelError(f"{file}: its safetensors header is damaged or cut short; fetch the file again.")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        tensors = [_stored(name, entry, file, 8 + length) for name, entry in header.items()]
    except FileNotFoundError:
        raise ModelError(f"{file}: no such file; the folder is incomplete, fetch it again.") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"{file}: its safetensors header is damaged; fetch the file again.") from None
    tensors.sort(key=lambda tensor: (tensor.start, tensor.nbytes))
    end = 8 + length
    for tensor in tensors:
        if tensor.start != end:
            raise ModelError(f"{file}: its safetensors header is damaged at {tensor.name!r}; fetch the file again.")
        end += tensor.nbytes
    if end != size:
        raise ModelError(f"{file}: cut short or damaged, {size} bytes where its header says {end}; fetch it again.")
    return tensors


def _stored(name: str, entry: dict[str, Any], file: Path, data_start: int) -> StoredTensor:
    """One header entry, checked in itself; ValueError where its shape and its bytes disagree."""
    if entry["dtype"] not in ITEM_SIZES:
        raise ModelError(f"{file}: {name!r} has the type {entry['dtype']!r}; known are {', '.join(ITEM_SIZES)}.")
    start, end = entry["data_offsets"]
    shape = tuple(int(size) for size in entry["shape"])
    if min(shape, default=0) < 0 or prod(shape) * ITEM_SIZES[entry["dtype"]] != end - start:
        raise ValueError(name)
    return StoredTensor(name, entry["dtype"], shape, file, data_start + start, end - start)


def stored_chunks(tensor: StoredTensor, size: int = CHUNK) -> Iterator[bytearray]:
    """Read a stored tensor in pieces of `size` bytes (a multiple of its item size; the last may be shorter)."""
    ranges = iter(tensor.ranges or [(tensor.start, tensor.nbytes)])
    with tensor.file.open("rb", buffering=0) as stream:
        left, here = tensor.nbytes, 0
        while left:
            piece = bytearray(min(size, left))
            view = memoryview(piece)
            while view:
                if not here:
                    start, here = next(ranges)
                    stream.seek(start)
                got = stream.readinto(view[:here])
                if not got:
                    raise ModelError(f"{tensor.file}: ended inside {tensor.name!r}; the file changed or is damaged.")
                view = view[got:]
                here -= got
            left -= len(piece)
            yield piece


def blocks(tensor: StoredTensor) -> Iterator[torch.Tensor]:
    """Yield a stored float tensor in fp32, in blocks of whole rows (rows, ...) of about `BLOCK` elements."""
    import torch

    row = prod(tensor.shape[1:])
    rows = max(1, BLOCK // max(row, 1))
    dtype = getattr(torch, TORCH_NAMES[tensor.dtype])
    for piece in stored_chunks(tensor, rows * row * ITEM_SIZES[tensor.dtype]):
        block = torch.frombuffer(piece, dtype=dtype).reshape(-1, *tensor.shape[1:]).float()
        yield torch.nn.functional.normalize(block) if tensor.unit_rows else block


def load(tensor: StoredTensor) -> torch.Tensor:
    """The whole of a stored float tensor in fp32, with its shape."""
    import torch

    return torch.cat(list(blocks(tensor))).reshape(tensor.shape)


def to_bytes(block: torch.Tensor, dtype: str, name: str) -> memoryview:
    """The bytes of a float block in the format's `dtype`. Raises ModelError, with `name`, where one is not finite."""
    import torch

    block = block.to(getattr(torch, TORCH_NAMES[dtype])).cpu().contiguous()
    if not torch.isfinite(block).all():
        raise ModelError(f"{name}: a value is not finite in {dtype}. Did the training diverge, or is fp16 too narrow?")
    return block.flatten().view(torch.uint8).numpy().data


def copied(tensor: StoredTensor, dtype: str | None = None) -> NewTensor:
    """A `NewTensor` with the content of a stored one; floats are cast to `dtype` if one is given."""
    dtype = dtype if dtype and tensor.dtype in TORCH_NAMES else tensor.dtype
    if dtype == tensor.dtype and not tensor.unit_rows:
        return NewTensor(tensor.name, tensor.dtype, tensor.shape, lambda: stored_chunks(tensor))
    return NewTensor(
        tensor.name, dtype, tensor.shape, lambda: (to_bytes(block, dtype, tensor.name) for block in blocks(tensor))
    )


def write_model(
    folder: Path,
    tensors: Sequence[NewTensor],
    max_bytes: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write tensors as `model.safetensors`, or as numbered shards with an index, and read every byte back.

    Args:
        folder: an existing folder.
        tensors: in the order in which shards are filled.
        max_bytes: limit of data per shard; a larger tensor gets a shard of its own.
        on_progress: called with (tensors written, tensors in all).

    Returns: the files written, the index included.

    Raises:
        ModelError: what was read back is not what was written.
    """
    shards = _plan(tensors, max_bytes)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    files = [folder / name for name in (names if len(shards) > 1 else [SINGLE])]
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, len(tensors))

    with ThreadPoolExecutor(1) as pool:  # one shard is read back while the next is computed; hashing frees the GIL
        checks = [
            pool.submit(_read_back, file, _write(file, shard, count)) for file, shard in zip(files, shards, strict=True)
        ]
        for check in checks:
            check.result()
    if len(shards) > 1:
        where = {tensor.name: file.name for file, shard in zip(files, shards, strict=True) for tensor in shard}
        index = {"metadata": {"total_size": sum(tensor.nbytes for tensor in tensors)}, "weight_map": where}
        write_json(folder / INDEX, index)
        files.append(folder / INDEX)
    return files


def write_file(file: Path, tensors: Sequence[NewTensor]) -> None:
    """Write one safetensors file and read it back. Raises ModelError where the two differ."""
    _read_back(file, _write(file, tensors, lambda: None))


def _plan(tensors: Sequence[NewTensor], max_bytes: int) -> list[list[NewTensor]]:
    """Fill shards in order; a new one begins where the next tensor would pass the limit."""
    shards: list[list[NewTensor]] = [[]]
    filled = 0
    for tensor in tensors:
        if shards[-1] and filled + tensor.nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(tensor)
        filled += tensor.nbytes
    return shards


def _write(file: Path, tensors: Sequence[NewTensor], count: Callable[[], None]) -> dict[str, tuple[NewTensor, str]]:
    """Write one file; returns {name: (tensor, sha256 of its bytes)}."""
    # Wide types first, so that every tensor starts at a multiple of its item size and can be mapped as it lies.
    ordered = sorted(tensors, key=lambda tensor: -ITEM_SIZES[tensor.dtype])
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in ordered:
        offsets = [end, end := end + tensor.nbytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    written = {}
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered:
            digest = hashlib.sha256()
            for chunk in tensor.chunks():
                stream.write(chunk)
                digest.update(chunk)
            written[tensor.name] = (tensor, digest.hexdigest())
            count()
    return written


def _read_back(file: Path, written: dict[str, tuple[NewTensor, str]]) -> None:
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        if hasattr(os, "posix_fadvise"):  # let the disk answer, not the page cache
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    found = {tensor.name: tensor for tensor in read_header(file)}
    for name, (tensor, digest) in written.items():
        again = hashlib.sha256()
        back = found.get(name)
        if back and (back.dtype, back.shape) == (tensor.dtype, tensor.shape):
            for chunk in stored_chunks(back):
                again.update(chunk)
        if again.hexdigest() != digest:
            raise ModelError(f"{file.name}: {name!r} reads back differently than it was written; check the disk.")
