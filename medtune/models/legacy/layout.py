"""One model's weights under two sets of names: as its authors stored them, and as a class of transformers reads them.

Every difference between the two is one of names and of rows: fused projections are rows of several weights in one
tensor. So a `Layout` is data, and serves both directions, tensor by tensor, by reading other bytes of the same file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from medtune.errors import ModelError
from medtune.shards import ITEM_SIZES, TORCH_NAMES, NewTensor, StoredTensor

# Computed as they are needed, though some folders store them.
BUFFERS = re.compile(r".*\.(rotary_emb|rotary_pos_emb)\.\w+|.*\.attn\.masked_bias")
UNIT_SLACK = 0.02  # by which the norm of a row in 16 bits may differ from 1


class Part(NamedTuple):
    """A tensor of the class, as rows of a tensor of the original."""

    name: str
    shape: tuple[int, ...]
    rows: tuple[tuple[int, int], ...]
    """(first, last + 1) in the original, in the order of the part's own rows."""
    unit_rows: bool = False
    """True if the original divides each row by its norm as it computes."""


class Layout(NamedTuple):
    """Where everything of one model goes."""

    config: dict[str, Any]
    """config.json for transformers' class."""
    parts: dict[str, list[Part]]
    """By name in the original."""


def whole(name: str, *shape: int, unit_rows: bool = False) -> list[Part]:
    """A tensor that only changes its name."""
    return [Part(name, shape, ((0, shape[0]),), unit_rows)]


def stacked(columns: tuple[int, ...], **heights: int) -> list[Part]:
    """Weights that lie in one tensor, one below the other: their names and rows, from the top."""
    parts, first = [], 0
    for name, height in heights.items():
        parts.append(Part(name, (height, *columns), ((first, first + height),)))
        first += height
    return parts


def for_layers(layer: Mapping[str, list[Part]], num_layers: int) -> dict[str, list[Part]]:
    """The entries of all layers, from one layer's with `{}` for its number."""
    return {
        old.format(i): [part._replace(name=part.name.format(i)) for part in parts]
        for i in range(num_layers)
        for old, parts in layer.items()
    }


def mapped(stored: Mapping[str, StoredTensor], layout: Layout, folder: Path) -> dict[str, StoredTensor]:
    """The tensors of an original model under the names of transformers' class; nothing is read yet.

    Args:
        stored: the original's, by name.
        layout: of that model.
        folder: for messages.

    Raises:
        ModelError: a tensor is missing, is left over, or has another shape than config.json says.
    """
    parts = dict(layout.parts)
    if layout.config["tie_word_embeddings"]:
        parts = {old: new for old, new in parts.items() if new[0].name != "lm_head.weight" or old in stored}
    missing = [name for name in parts if name not in stored]
    extra = [name for name in stored if name not in parts and not BUFFERS.fullmatch(name)]
    if missing or extra:
        what = f"lacks {missing[0]!r}" if missing else f"also holds {extra[0]!r}"
        raise ModelError(
            f"{folder}: config.json does not describe these weights: the model {what} ({len(missing)} tensors missing, "
            f"{len(extra)} too many). Fetch the folder again."
        )
    return {part.name: _part_of(stored[old], part, new, folder) for old, new in parts.items() for part in new}


def _part_of(tensor: StoredTensor, part: Part, siblings: Sequence[Part], folder: Path) -> StoredTensor:
    wanted = (_height(siblings), *part.shape[1:])
    if tensor.shape != wanted or tensor.dtype not in TORCH_NAMES:
        raise ModelError(
            f"{folder}: config.json does not describe these weights: {tensor.name!r} is {tensor.dtype} "
            f"{list(tensor.shape)}, wanted 16- or 32-bit floats {list(wanted)}. Fetch the folder again."
        )
    row = prod(part.shape[1:]) * ITEM_SIZES[tensor.dtype]
    ranges = tuple((tensor.start + first * row, (end - first) * row) for first, end in part.rows)
    nbytes = prod(part.shape) * ITEM_SIZES[tensor.dtype]
    return StoredTensor(part.name, tensor.dtype, part.shape, tensor.file, ranges[0][0], nbytes, ranges, part.unit_rows)


def _height(parts: Sequence[Part]) -> int:
    return max(end for part in parts for _, end in part.rows)


def original(tensors: Sequence[NewTensor], layout: Layout, folder: Path) -> list[NewTensor]:
    """The inverse of `mapped`: tensors of transformers' class as those of the original; a fused one is held at once.

    Raises:
        ModelError: a tensor has no place there or another shape; or, while it is written, a row that the original
            divides by its norm has not the norm 1.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    wanted = {part.name: part for parts in layout.parts.values() for part in parts}
    tied = layout.config["tie_word_embeddings"]
    for name in sorted(set(by_name) ^ set(wanted)):
        if not (tied and name == "lm_head.weight"):
            raise ModelError(f"{folder}: {name!r} is not in both layouts; leave out --save-format original.")
    made = []
    for old, parts in layout.parts.items():
        found = [by_name[part.name] for part in parts if part.name in by_name]
        for part, tensor in zip(parts, found, strict=False):
            if tensor.shape != part.shape:
                raise ModelError(
                    f"{folder}: {tensor.name!r} is {list(tensor.shape)}, in the original {list(part.shape)}; leave out "
                    "--save-format original, whose config has no place for other sizes."
                )
        if found:
            made.append(_fused(old, parts, found))
    return made


def _fused(old: str, parts: Sequence[Part], found: Sequence[NewTensor]) -> NewTensor:
    shape, dtype = (_height(parts), *parts[0].shape[1:]), found[0].dtype
    row = prod(shape[1:]) * ITEM_SIZES[dtype]

    def joined() -> Iterator[bytearray]:
        whole = bytearray(shape[0] * row)
        for part, tensor in zip(parts, found, strict=True):
            content, at = b"".join(tensor.chunks()), 0
            for first, end in part.rows:
                size = (end - first) * row
                whole[first * row : end * row] = content[at : at + size]
                at += size
        yield whole

    if parts[0].unit_rows:
        return NewTensor(old, dtype, shape, lambda: _of_norm_one(old, found[0]))
    if len(parts) == 1:
        return NewTensor(old, dtype, shape, found[0].chunks)
    return NewTensor(old, dtype, shape, joined)


def _of_norm_one(name: str, tensor: NewTensor) -> Iterator[bytearray]:
    import torch

    content = bytearray(b"".join(tensor.chunks()))
    rows = torch.frombuffer(content, dtype=getattr(torch, TORCH_NAMES[tensor.dtype])).reshape(tensor.shape)
    worst = max(((block.float().norm(dim=1) - 1).abs().max().item() for block in rows.split(4096)), default=0.0)
    if worst > UNIT_SLACK:
        raise ModelError(
            f"{name}: the original divides each row by its norm as it computes, and training changed the norms; "
            "leave out --save-format original."
        )
    yield content
