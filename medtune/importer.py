"""Old checkpoints, read without running what they hold: `.pth` files of mmengine and XTuner, folders of DeepSpeed.

The one module that may call `torch.load`. It does so with `weights_only=True`, in a process of its own, and there is no
second way when that fails. What such a file holds besides tensors (mmengine's HistoryBuffers, NumPy scalars) comes back
as a `Placeholder`: none of its classes is imported.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtune import __version__
from medtune.convert import RECORD, is_tokenizer_file, new_folder
from medtune.errors import ModelError
from medtune.files import write_json
from medtune.model_card import model_card
from medtune.models.adapter import LORA_NAME, PREFIX, WEIGHTS, read_adapter
from medtune.models.identity import fingerprint
from medtune.models.load import EMBEDDED, model_folder

if TYPE_CHECKING:
    import torch

DEEPSPEED_FILE = "mp_rank_00_model_states.pt"
WEIGHT_KEYS = ("state_dict", "module")  # of mmengine and XTuner, and of DeepSpeed
# What lies beside the weights in honest files (a HistoryBuffer names getattr). Stood in for, never imported or called.
STOOD_IN_FOR = (
    *("mmengine.", "numpy.", "deepspeed.", "torch.", "datetime.", "pathlib.", "collections."),
    *("builtins.getattr", "builtins.bytes"),
)
WRAPPER = "llm."  # XTuner's SupervisedFinetune holds the model under this name
REFUSED = 2


class Placeholder:
    """Stands in for a class or function of another package: takes whatever it is given and keeps nothing."""

    def __new__(cls, *_: Any) -> Placeholder:
        """Make one, whatever the arguments."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def is_old_checkpoint(path: Path) -> bool:
    """True for what `read_old_checkpoint` is meant for: a file, or a folder that DeepSpeed wrote."""
    return path.is_file() or (path.is_dir() and any(path.glob("*model_states.pt")))


def read_old_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read the weights of an old checkpoint: tensors by name, on the CPU, in the dtype they were stored in.

    Args:
        path: a `.pth` file of mmengine or XTuner, or the folder of a DeepSpeed ZeRO-1 or ZeRO-2 checkpoint, of which
            the 16-bit weights are read.

    Raises:
        ModelError: the file is something else, is damaged, or names code other than what is stood in for.
    """
    from safetensors.torch import load_file

    source = _weights_file(Path(path)).resolve()
    root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryDirectory(prefix="medtune-import-") as folder:
        target = Path(folder) / "weights.safetensors"
        # `-m` would look for modules in the current folder first; that is where a download lies.
        done = subprocess.run(
            [sys.executable, "-m", "medtune.importer", str(source), str(target)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": search},
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode == 0:
            return load_file(target)
    said = done.stdout.strip()[:400] if done.returncode == REFUSED else ""
    raise ModelError(f"{path}: {said or f'not readable, its reader ended with {done.returncode}; it may be damaged.'}")


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    files = sorted(path.glob("*model_states.pt")) if path.is_dir() else []
    if not files:
        raise ModelError(f"{path}: wanted a .pth file of mmengine or XTuner, or a DeepSpeed folder with *_states.pt.")
    if [file.name for file in files] != [DEEPSPEED_FILE]:
        raise ModelError(
            f"{path}: its weights are in {len(files)} parts, such as {files[0].name} (ZeRO-3 or model parallel); "
            "put them together with DeepSpeed's zero_to_fp32.py where they were trained, then convert that file."
        )
    return files[0]


# ---------------------------------------------------------------- in the process of its own


def main(source: str, target: str) -> int:
    """Copy the tensors of an old checkpoint into a safetensors file; print the reason where that is refused."""
    from safetensors.torch import save_file

    try:
        tensors = _tensors(Path(source))
        # Tensors that share memory, as tied weights do, are written each on its own.
        save_file({name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}, target)
    except ModelError as refusal:
        print(refusal)
        return REFUSED
    return 0


def _tensors(source: Path) -> dict[str, torch.Tensor]:
    import torch

    holder = _load(source)
    found = next((holder[key] for key in WEIGHT_KEYS if key in holder), None) if isinstance(holder, dict) else None
    if not isinstance(found, dict) or not found:
        raise ModelError(f"no weights in it; wanted a dict with {' or '.join(map(repr, WEIGHT_KEYS))}.")
    for name, tensor in found.items():
        plain = isinstance(name, str) and type(tensor) in (torch.Tensor, torch.nn.Parameter)
        if not plain or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ModelError("not every entry of its weights is a plain tensor with a name.")
        if not tensor.numel() or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ModelError(f"{name!r} has the shape {list(tensor.shape)}, but not the values for it.")
    return found


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


# ---------------------------------------------------------------- XTuner's LoRA -> an adapter folder


def import_adapter(checkpoint: Path, values: Mapping[str, Any], out: Path, fp32: bool = False) -> list[Path]:
    """Write the LoRA weights of an old checkpoint as an adapter folder that medtune and PEFT load.

    Args:
        checkpoint: as for `read_old_checkpoint`.
        values: of the config it was trained with (`medtune.config.load(...).values`); `model.lora` gives alpha, which
            the checkpoint does not hold, and `model.llm` the base model.
        out: a folder that does not exist yet, or is empty.
        fp32: cast the weights to fp32; else they keep the dtype they were stored in.

    Returns: the files in `out`.

    Raises:
        ModelError: not such a checkpoint, one of a full fine-tune, or one that does not fit `model.lora`.
        UsageError, EnvironmentFault: as `convert.new_folder`.
    """
    from safetensors.torch import save_file

    stored = read_old_checkpoint(checkpoint)
    tensors = {_peft_name(name): tensor for name, tensor in stored.items() if "lora_" in name or ".modules_to" in name}
    if not tensors:
        raise ModelError(
            f"{checkpoint}: {len(stored)} tensors and no LoRA among them, so it is a full model; medtune takes over "
            "adapters only. Convert it with the XTuner that wrote it (`xtuner convert pth_to_hf`)."
        )
    if fp32:
        tensors = {name: tensor.float() for name, tensor in tensors.items()}
    lora = _lora_config(values, tensors, checkpoint)
    record = _record(values, lora)
    with new_folder(out, sum(tensor.nbytes for tensor in tensors.values())) as folder:
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        lora.save_pretrained(str(folder))
        _check_written(folder, checkpoint)
        _copy_tokenizer(values, folder)
        write_json(folder / RECORD, record)
        (folder / "README.md").write_text(model_card(record), encoding="utf-8")
    return sorted(out.iterdir())


def _check_written(folder: Path, checkpoint: Path) -> None:
    try:
        read_adapter(folder)
    except ModelError as fault:
        reason = str(fault).removeprefix(str(folder)).lstrip("/")
        raise ModelError(f"{checkpoint}: no LoRA adapter that fits the config: {reason}") from None


def _peft_name(name: str) -> str:
    """`llm.base_model.model.M.lora_A.default.weight`, as the model has it, to what PEFT writes in a file."""
    name = re.sub(r"\.(lora_\w+|modules_to_save)\.default(?=\.|$)", r".\1", name.removeprefix(WRAPPER))
    name = name.replace(".modules_to_save.", ".")
    return name if name.startswith(PREFIX) else PREFIX + name


def _lora_config(values: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], checkpoint: Path) -> Any:
    """The config's LoRA settings with the modules that the checkpoint really holds."""
    from medtune.build import build

    model = values.get("model")
    lora = build(model.get("lora")) if isinstance(model, dict) else None
    if lora is None:
        raise ModelError(f"{checkpoint}: it holds a LoRA adapter, and the config has no model.lora; name the config.")
    modules: set[str] = set()
    replaced: set[str] = set()
    for name, tensor in tensors.items():
        match = LORA_NAME.fullmatch(name.removeprefix(PREFIX))
        (modules if match else replaced).add((match[1] if match else name.rpartition(".")[0]).rpartition(".")[2])
        if match and match[3] == "A" and tensor.shape[0] != lora.r and not lora.rank_pattern:
            raise ModelError(
                f"{checkpoint}: {name!r} has rank {tensor.shape[0]}, the config's LoRA r={lora.r}; name the config it "
                "was trained with, or set lora_r and lora_alpha."
            )
    lora.target_modules = modules
    lora.modules_to_save = sorted(replaced) or None
    lora.base_model_name_or_path = _base_name(values)
    lora.inference_mode = True
    return lora


def _base_name(values: Mapping[str, Any]) -> str:
    return str((values["model"].get("llm") or {}).get("pretrained_model_name_or_path", ""))


def _local(name: str) -> Path | None:
    """The folder of a model that is here; None for one that a hub would have to give."""
    here = name in EMBEDDED or (name and Path(name).expanduser().is_dir())
    return model_folder(name) if here else None


def _record(values: Mapping[str, Any], lora: Any) -> dict[str, Any]:
    """What `medtune.json` can say of a training that medtune did not do."""
    llm, dataset = values["model"].get("llm") or {}, values.get("train_dataset") or {}
    template, base = dataset.get("prompt_template"), _local(_base_name(values))
    return {
        "medtune_version": __version__,
        "stage": "sft",
        "method": "qlora" if llm.get("bits") else "lora",
        "base_model": {"name_or_path": lora.base_model_name_or_path, "fingerprint": base and fingerprint(base)},
        "prompt_template": template if isinstance(template, str) else None,
        "system": str(dataset.get("system") or ""),
        "max_length": dataset.get("max_length"),
    }


def _copy_tokenizer(values: Mapping[str, Any], folder: Path) -> None:
    """The config's tokenizer, where it lies here."""
    source = _local(str((values.get("tokenizer") or {}).get("pretrained_model_name_or_path", "")))
    for file in sorted(source.iterdir()) if source else []:
        if file.is_file() and is_tokenizer_file(file.name):
            (folder / file.name).write_bytes(file.read_bytes())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
