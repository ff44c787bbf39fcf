"""A model folder's weights under the names of transformers' class, whatever they were stored as; and loading them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune.importer import BIN_FILES, old_weights
from medtune.models.identity import model_tensors
from medtune.models.legacy.families import layout_of
from medtune.models.legacy.layout import mapped
from medtune.shards import INDEX, SINGLE, TORCH_NAMES, StoredTensor, load, stored_chunks

if TYPE_CHECKING:
    import torch


@contextmanager
def opened(folder: Path, beside: Path | None = None) -> Iterator[dict[str, StoredTensor]]:
    """Describe every tensor of a model folder by the name that transformers' class gives it; no weight is read.

    `.bin` files are copied, by the reader that runs nothing of them, into a safetensors file that goes at the end.

    Args:
        folder: a model folder, of transformers or one of `families`.
        beside: where that file lies meanwhile; None is the machine's temporary folder.

    Raises:
        ModelError: weights are missing or damaged, or config.json does not describe them.
        EnvironmentFault: the disk does not take the copy.
    """
    folder = Path(folder)
    layout = layout_of(folder)
    with _as_stored(folder, beside) as stored:
        yield mapped(stored, layout, folder) if layout else stored


@contextmanager
def _as_stored(folder: Path, beside: Path | None) -> Iterator[dict[str, StoredTensor]]:
    has_safetensors = (folder / SINGLE).exists() or (folder / INDEX).exists()
    if has_safetensors or not any(folder.glob(BIN_FILES)):
        yield model_tensors(folder)
        return
    with old_weights(folder, beside) as copied:
        yield {tensor.name: tensor for tensor in copied}


class Unread:
    """A stored tensor that transformers reads when it comes to it: `tensor[...]`."""

    def __init__(self, stored: StoredTensor) -> None:
        self.stored = stored

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The tensor, in its own dtype, on the CPU."""
        import torch

        dtype = getattr(torch, TORCH_NAMES[self.stored.dtype])
        if self.stored.unit_rows:
            return load(self.stored).to(dtype)[index]
        (content,) = stored_chunks(self.stored, self.stored.nbytes)
        return torch.frombuffer(content, dtype=dtype).reshape(self.stored.shape)[index]


def from_original(folder: Path, config: Mapping[str, Any], maker: Any, **options: Any) -> Any:
    """Load an original model into transformers' class, tensor by tensor, as `from_pretrained` does with any other.

    Args:
        folder: of the original model.
        config: of its `Layout`.
        maker: transformers' `AutoModelForCausalLM`, or another such class.
        options: of `from_pretrained`.

    Returns: what `from_pretrained` returns.
    """
    options = {key: value for key, value in options.items() if key != "use_safetensors"}
    if "num_labels" in options:
        config = {**config, "num_labels": options.pop("num_labels")}
    with opened(folder) as tensors:
        state = {name: Unread(tensor) for name, tensor in tensors.items()}
        made = class_config(config)
        return maker._model_mapping[type(made)].from_pretrained(None, config=made, state_dict=state, **options)


def class_config(config: Mapping[str, Any]) -> Any:
    """transformers' config object of a `Layout`'s config."""
    from transformers import AutoConfig

    values = dict(config)
    return AutoConfig.for_model(values.pop("model_type"), **values)
