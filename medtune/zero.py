"""DeepSpeed's ZeRO-3 folders: each parameter lies in pieces, one on every rank, and is laid together again exactly.

The layout, as DeepSpeed 0.18.9 writes it (its own reader is `deepspeed/utils/zero_to_fp32.py`): a parameter of n
elements is cut, flattened and padded, into one piece of ceil(n / ranks) elements a rank. The fp32 pieces of all trained
parameters follow each other, in the order of `param_shapes`, in the rank's `fp32_flat_groups`; groups are only a cut in
that row. Pieces of frozen parameters lie by name in `frozen_param_fragments`. Nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from medtune.errors import ModelError

if TYPE_CHECKING:
    import torch

MODEL_FILE = re.compile(r"zero_pp_rank_(\d+)_mp_rank_00_model_states\.pt")
OPTIMIZER_FILE = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt")
BROKEN = "its ZeRO-3 states are not as DeepSpeed writes them: "


class Pieces(NamedTuple):
    """A tensor that lies in flat pieces, which follow each other."""

    shape: tuple[int, ...]
    pieces: list[torch.Tensor]
    """(n_i,) each, of one dtype; together as many elements as the shape has."""


def files_of(names: Sequence[str]) -> list[tuple[str, str]] | None:
    """The model's and the optimizer's file of every rank, by rank; None where a rank's are missing or others there."""
    models = {int(match[1]): name for name in names if (match := MODEL_FILE.fullmatch(name))}
    optimizers = {int(match[1]): name for name in names if (match := OPTIMIZER_FILE.fullmatch(name))}
    complete = set(models) == set(optimizers) == set(range(len(models))) and models
    if not complete or len(models) + len(optimizers) != len(names):
        return None
    return [(models[rank], optimizers[rank]) for rank in sorted(models)]


def gather(models: Sequence[Mapping[str, Any]], optimizers: Sequence[Mapping[str, Any]]) -> dict[str, Pieces]:
    """Lay the parameters and buffers of a ZeRO-3 checkpoint together; only views are made.

    Args:
        models: what each rank's `*_model_states.pt` holds, by rank.
        optimizers: what each rank's `*_optim_states.pt` holds.

    Returns: trained parameters in fp32; frozen ones and buffers in the dtype they were stored in.

    Raises:
        ModelError: a piece is missing, or too long or short for the shapes.
    """
    ranks = len(models)
    states = [_part(optimizer, "optimizer_state_dict", dict) for optimizer in optimizers]
    if any(state.get("partition_count") != ranks for state in states):
        raise ModelError(f"{BROKEN}they are not of the {ranks} ranks that are here; a rank's files may be missing.")
    first = models[0]
    found = _buffers(first)
    frozen = _shapes(first.get("frozen_param_shapes") or {})
    for name, shape in frozen.items():
        pieces = [_part(model, "frozen_param_fragments", dict).get(name) for model in models]
        found[name] = _laid_together(name, shape, [[_flat(piece, name)] for piece in pieces])
    trained = [_shapes(group) for group in _part(first, "param_shapes", list)]
    rows = [_Row(_part(state, "fp32_flat_groups", list)) for state in states]
    for name, shape in ((name, shape) for group in trained for name, shape in group.items()):
        length = -(-prod(shape) // ranks)
        found[name] = _laid_together(name, shape, [list(row.take(length, name)) for row in rows])
    if any(row.rest for row in rows):
        raise ModelError(f"{BROKEN}more numbers than its shapes have.")
    for name, other in _part({"shared_params": {}, **first}, "shared_params", dict).items():
        if isinstance(other, str) and other in found:
            found[name] = found[other]
    return found


def _buffers(model: Mapping[str, Any]) -> dict[str, Pieces]:
    held = _part(model, "module", dict)
    found = {}
    for name in _part(model, "buffer_names", list):
        tensor = held.get(name)
        found[name] = Pieces(tuple(getattr(tensor, "shape", ())), [_flat(tensor, name)])
    return found


class _Row:
    """The flat groups of a rank as one row of numbers, taken from its beginning."""

    def __init__(self, groups: Sequence[Any]) -> None:
        self.groups = [_flat(group, "fp32_flat_groups") for group in groups]
        self.group, self.at = 0, 0

    def take(self, length: int, name: str) -> Iterator[torch.Tensor]:
        while length:
            if self.group == len(self.groups):
                raise ModelError(f"{BROKEN}too few numbers for {name!r}.")
            piece = self.groups[self.group][self.at : self.at + length]
            if len(piece):
                yield piece
            length -= len(piece)
            self.at += len(piece)
            if self.at == len(self.groups[self.group]):
                self.group, self.at = self.group + 1, 0

    @property
    def rest(self) -> int:
        """Numbers not taken."""
        return sum(map(len, self.groups[self.group :])) - self.at


def _laid_together(name: str, shape: tuple[int, ...], by_rank: Sequence[Sequence[torch.Tensor]]) -> Pieces:
    """One tensor from the pieces of all ranks, without the padding at its end."""
    wanted, length = prod(shape), -(-prod(shape) // len(by_rank))
    if not wanted or any(sum(map(len, own)) != length for own in by_rank):
        raise ModelError(f"{BROKEN}a piece of {name!r} is not of {length} numbers.")
    pieces = []
    for piece in (piece for own in by_rank for piece in own):
        pieces.append(piece[:wanted])
        wanted -= len(pieces[-1])
    return Pieces(shape, [piece for piece in pieces if len(piece)])


def require_plain(name: object, tensor: Any) -> None:
    """Raise ModelError for what is no dense tensor on the CPU with a name and all of its values."""
    import torch

    plain = isinstance(name, str) and type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if not plain or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ModelError("not every entry of its weights is a plain tensor with a name.")
    if not tensor.numel() or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(f"{name!r} has the shape {list(tensor.shape)}, but not the values for it.")


def _flat(tensor: Any, name: str) -> torch.Tensor:
    require_plain(name, tensor)
    return tensor.detach().reshape(-1)


def _part(holder: Any, key: str, kind: type) -> Any:
    found = holder.get(key) if isinstance(holder, Mapping) else None
    if not isinstance(found, kind):
        raise ModelError(f"{BROKEN}no {key!r} in them.")
    return found


def _shapes(group: Any) -> dict[str, tuple[int, ...]]:
    """Parameter -> its shape; torch.Size and tuples of whole numbers are such."""
    fine = isinstance(group, Mapping) and all(
        isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape) for shape in group.values()
    )
    if not fine:
        raise ModelError(f"{BROKEN}a shape that is none.")
    return {str(name): tuple(shape) for name, shape in group.items()}
