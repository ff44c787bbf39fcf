"""Old weights, read without running what they hold: `.pth` of mmengine and XTuner, DeepSpeed's folders, `.bin` shards.

The one module that may call `torch.load`. It does so with `weights_only=True`, in a process of its own, and there is no
second way when that fails. What such a file holds besides tensors (mmengine's HistoryBuffers, NumPy scalars) comes back
as a `Placeholder`: none of its classes is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune import zero
from medtune.errors import EnvironmentFault, ModelError
from medtune.shards import CHUNK, NewTensor, StoredTensor, read_header, write_file

if TYPE_CHECKING:
    import torch

DEEPSPEED_FILE = "mp_rank_00_model_states.pt"
BIN_FILES = "pytorch_model*.bin"  # of model folders before safetensors: each a dict of tensors by name
WEIGHT_KEYS = ("state_dict", "module")  # of mmengine and XTuner, and of DeepSpeed
# What lies beside the weights in honest files (a HistoryBuffer names getattr). Stood in for, never imported or called.
STOOD_IN_FOR = (
    *("mmengine.", "numpy.", "deepspeed.", "torch.", "datetime.", "pathlib.", "collections."),
    *("builtins.getattr", "builtins.bytes"),
)
REFUSED, UNWRITTEN = 2, 3
FORMATS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3"}
FORMATS |= {"float8_e5m2": "F8_E5M2", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8"}
FORMATS |= {"bool": "BOOL"}


class Placeholder:
    """Stands in for a class or function of another package: takes whatever it is given and keeps nothing."""

    def __new__(cls, *_: Any) -> Placeholder:
        """Make one, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


@contextmanager
def old_weights(path: Path, beside: Path | None = None) -> Iterator[list[StoredTensor]]:
    """The weights of an old checkpoint, in the dtype they were stored in, as a safetensors file that goes at the end.

    Args:
        path: a `.pth` file of mmengine or XTuner, or the folder of a DeepSpeed checkpoint: of ZeRO-1 and ZeRO-2 the
            16-bit weights are read, of ZeRO-3 the fp32 ones, from the pieces of all ranks; or a model folder with
            `pytorch_model*.bin`.
        beside: where that file lies meanwhile, as large as the weights; None is the machine's temporary folder.

    Raises:
        ModelError: the file is something else, is damaged, or names code other than what is stood in for.
        EnvironmentFault: the disk does not take the weights.
    """
    source = Path(path).resolve()
    if not source.exists():
        raise ModelError(f"{path}: wanted a .pth file of mmengine or XTuner, or a DeepSpeed folder with *_states.pt.")
    root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="medtune-import-", dir=beside) as folder:
        target = Path(folder).resolve() / "weights.safetensors"
        # `-m` would look for modules in the current folder first; that is where a download lies.
        done = subprocess.run(
            [sys.executable, "-m", "medtune.importer", str(source), str(target)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": search},
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode == UNWRITTEN:
            raise EnvironmentFault(
                f"{folder}: the weights of {path} do not go there: {done.stdout.strip()}. Make room."
            )
        if done.returncode:
            said = done.stdout.strip()[:400] if done.returncode == REFUSED else ""
            reason = said or f"not readable, its reader ended with {done.returncode}; it may be damaged."
            raise ModelError(f"{path}: {reason}")
        yield read_header(target)


def read_old_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read all weights of an old checkpoint at once: tensors by name, on the CPU. See `old_weights`."""
    from safetensors.torch import load_file

    with old_weights(path) as stored:
        return load_file(stored[0].file)


# ---------------------------------------------------------------- in the process of its own


def main(source: str, target: str) -> int:
    """Copy the tensors of an old checkpoint into a safetensors file; print the reason where that is refused."""
    try:
        write_file(Path(target), [_new(name, found) for name, found in _weights(Path(source)).items()])
    except ModelError as refusal:
        Path(target).unlink(missing_ok=True)
        print(refusal)
        return REFUSED
    except OSError as fault:
        print(fault.strerror)
        return UNWRITTEN
    return 0


def _new(name: str, found: zero.Pieces) -> NewTensor:
    """A tensor to be written; ones that share memory, as tied weights do, are written each on its own."""
    dtypes = {str(piece.dtype).removeprefix("torch.") for piece in found.pieces}
    dtype = FORMATS.get(min(dtypes))
    if len(dtypes) > 1 or dtype is None:
        raise ModelError(f"{name!r} is stored as {', '.join(sorted(dtypes))}, which is not read.")
    return NewTensor(name, dtype, found.shape, lambda: _chunks(found.pieces))


def _chunks(pieces: Iterable[torch.Tensor]) -> Iterator[memoryview]:
    import torch

    for piece in pieces:
        for part in piece.contiguous().view(torch.uint8).split(CHUNK):
            yield part.numpy().data


def _weights(source: Path) -> dict[str, zero.Pieces]:
    if source.is_file():
        return _of_file(source)
    if shards_of_model := sorted(source.glob(BIN_FILES)):
        return {name: found for shard in shards_of_model for name, found in _plain(_load(shard), shard.name).items()}
    names = sorted(file.name for file in source.glob("*_states.pt"))
    models = [name for name in names if name.endswith("model_states.pt")]
    if models == [DEEPSPEED_FILE]:
        return _of_file(source / DEEPSPEED_FILE)
    shards = zero.files_of(names)
    if shards:
        pairs = [tuple(_load(source / name) for name in pair) for pair in shards]
        return zero.gather(*zip(*pairs, strict=True))
    raise ModelError(
        f"its weights are in {len(models)} parts, such as {min(models, default='none')}, of several models in parallel "
        "or without some rank's states. Put them together by DeepSpeed's zero_to_fp32.py where they were trained; then "
        "convert that file."
    )


def _of_file(source: Path) -> dict[str, zero.Pieces]:
    holder = _load(source)
    found = next((holder[key] for key in WEIGHT_KEYS if key in holder), None) if isinstance(holder, dict) else None
    if not isinstance(found, dict) or not found:
        raise ModelError(f"no weights in it; wanted a dict with {' or '.join(map(repr, WEIGHT_KEYS))}.")
    return _plain(found, source.name)


def _plain(found: Any, file: str) -> dict[str, zero.Pieces]:
    """A dict of tensors by name, each as one piece."""
    if not isinstance(found, dict):
        raise ModelError(f"no weights in {file}; wanted a dict of tensors by name.")
    for name, tensor in found.items():
        zero.require_plain(name, tensor)
    return {name: zero.Pieces(tuple(tensor.shape), [tensor.detach().reshape(-1)]) for name, tensor in found.items()}


def _load(source: Path) -> Any:
    """Unpickle with torch's restricted reader, every name outside its own list stood in for or refused."""
    import torch
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        names = get_unsafe_globals_in_checkpoint(str(source))
        if foreign := sorted(name for name in names if not name.startswith(STOOD_IN_FOR)):
            raise ModelError(f"it names {', '.join(map(repr, foreign[:3]))}, which could run code; it is not read.")
        with safe_globals([(Placeholder, name) for name in names]):
            return torch.load(source, map_location="cpu", weights_only=True, mmap=True)
    except ModelError:
        raise
    except Exception as fault:  # whatever a damaged file makes of torch's reader; there is no second way
        raise ModelError(
            f"not a checkpoint that torch.save wrote, or damaged ({type(fault).__name__}); medtune reads its weights "
            "only, never by unpickling code."
        ) from None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
