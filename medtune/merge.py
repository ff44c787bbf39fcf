"""Base + adapter -> model, streamed: one block of one tensor at a time, whatever the size of the model."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from medtune.convert import (
    RECORD,
    TEMPLATE_FILES,
    TOKENIZER_FILES,
    is_tokenizer_file,
    new_folder,
    publish,
    publish_original,
    read_record,
    with_dtype,
)
from medtune.errors import EnvironmentFault, ModelError, UsageError
from medtune.files import MANIFEST, check_files, read_json, write_json
from medtune.model_card import model_card
from medtune.models.adapter import CONFIG, SCORE, WEIGHTS, Change, merged, read_adapter, resize, untie, with_score
from medtune.models.checks import check_adapter
from medtune.models.identity import model_tensors, require_same_base
from medtune.models.legacy.families import SaveFormat, layout_of
from medtune.models.legacy.layout import original
from medtune.models.legacy.loading import opened
from medtune.models.load import Head, has_tokenizer, load_tokenizer, plain_model
from medtune.models.reward import set_padding
from medtune.shards import TORCH_NAMES, NewTensor, StoredTensor, copied, parse_size, write_model

DTYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
LEGAL_FILES = ("LICENSE*", "NOTICE*", "USE_POLICY*")


@dataclass(frozen=True)
class MergeReport:
    """What a merge did."""

    out: Path
    files: list[Path]
    """Weight files, and the index if there are several."""
    tensors: int
    """Tensors written."""
    changed: int
    """Of those, the ones that the adapter changed."""
    nbytes: int
    dtype: str
    """Of most of the weights: "bfloat16", ..."""
    untied: bool
    """True if lm_head had to be parted from the embedding it was tied to."""
    seconds: float
    logits_difference: float | None
    """Largest absolute difference of the probe's logits to base + adapter; None without `verify`."""


def merge(
    base: str | Path,
    adapter: Path,
    out: Path,
    *,
    max_shard_size: str = "2GB",
    device: str = "auto",
    dtype: str | None = None,
    verify: bool = False,
    any_base: bool = False,
    save_format: SaveFormat = "huggingface",
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Write base + adapter as a plain transformers model; every written tensor is read back and compared.

    Args:
        base: a model folder, the name of the embedded model, or a hub id.
        adapter: a LoRA adapter folder, or a checkpoint folder that holds one.
        out: a folder that does not exist yet, or is empty.
        max_shard_size: of a weight file, for example "2GB".
        device: where to compute: "auto", "cpu", "cuda" or "cuda:1".
        dtype: "bf16", "fp16" or "fp32" for all floating weights; None keeps each one's own.
        verify: also compare logits with transformers + PEFT; that loads both models in fp32.
        any_base: merge even if the base is not the one that was trained on.
        save_format: of a base with modelling code of its own: "huggingface" writes what plain transformers loads,
            "original" what that code does. Other bases have one format only.
        on_progress: called with (tensors written, tensors in all).

    Raises:
        ModelError: base and adapter are damaged, do not fit, or cannot be merged exactly.
        UsageError: `out` is in use, is the base or the adapter, or an argument is not one of the above.
        EnvironmentFault: no such device, or too little disk.
    """
    began = time.monotonic()
    where = _device(device)
    max_bytes = parse_size(max_shard_size)
    adapter, base_folder = Path(adapter), _base_folder(base)
    _check_out(Path(out), base_folder, adapter)
    changes = read_adapter(adapter)
    _check_manifest(adapter)
    record = read_record(adapter)
    layout = layout_of(base_folder)
    config = dict(layout.config) if layout else _base_config(base_folder)
    with opened(base_folder, beside=_beside(Path(out))) as stored:
        if not any_base:
            require_same_base(base_folder, record, adapter)
        _check_tokenizer(base_folder, adapter)
        if SCORE in changes:
            tokenizer = load_tokenizer(str(adapter if has_tokenizer(adapter) else base_folder))
            stored, config = with_score(stored, config, changes, set_padding(tokenizer))
        stored, config, untied = untie(stored, config, changes)
        config = resize(stored, config, changes)
        tensors = _plan(stored, changes, dtype, where, adapter)
        main_dtype = _main_dtype(tensors)
        if layout and save_format == "original":
            tensors, config = original(tensors, layout, adapter), read_json(base_folder / "config.json")
        with new_folder(Path(out), sum(tensor.nbytes for tensor in tensors)) as folder:
            files = write_model(folder, tensors, max_bytes, on_progress)
            write_json(folder / "config.json", with_dtype(config, main_dtype))
            if layout:
                _copy_side_files_of_original(base_folder, adapter, folder, save_format)
            else:
                _copy_side_files(base_folder, adapter, folder)
            _write_record(folder, record, str(base), main_dtype)
            difference = _compare_logits(base_folder, adapter, folder, main_dtype, where) if verify else None
    return MergeReport(
        out=Path(out),
        files=[Path(out) / file.name for file in files],
        tensors=len(tensors),
        changed=len(changes),
        nbytes=sum(tensor.nbytes for tensor in tensors),
        dtype=TORCH_NAMES[main_dtype],
        untied=untied,
        seconds=time.monotonic() - began,
        logits_difference=difference,
    )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device: wanted auto, cpu or cuda, got {name!r}.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise EnvironmentFault(f"--device {name}: no such GPU here; use --device cpu, or see `medtune doctor`.")
    return device


def _base_folder(base: str | Path) -> Path:
    if Path(base).is_dir():
        return Path(base)
    from medtune.models.load import model_folder

    return model_folder(str(base))


def _check_out(out: Path, base: Path, adapter: Path) -> None:
    here = out.resolve()
    for what, folder in (("the base", base.resolve()), ("the adapter", adapter.resolve())):
        if here == folder or folder in here.parents:
            raise UsageError(f"{out}: this is, or lies in, the folder of {what}; name a new folder.")


def _check_manifest(adapter: Path) -> None:
    """A checkpoint folder knows what its files should be."""
    if (adapter / MANIFEST).exists():
        check_files(adapter, (CONFIG, WEIGHTS))


def _base_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if "quantization_config" in config:
        raise ModelError(f"{folder}: a quantised model; merge into the 16-bit base it was made from.")
    config.pop("auto_map", None)  # names code files, which are not taken along
    return config


def _check_tokenizer(base: Path, adapter: Path) -> None:
    if not has_tokenizer(base) and not has_tokenizer(adapter):
        raise ModelError(f"{base}: no tokenizer here nor in {adapter}; put the base's tokenizer files into one.")


def _plan(
    stored: dict[str, StoredTensor], changes: dict[str, Change], dtype: str | None, device: torch.device, adapter: Path
) -> list[NewTensor]:
    """Every tensor of the result, in the base's order; each change is used exactly once."""
    if dtype not in (None, *DTYPES):
        raise UsageError(f"--dtype: wanted {', '.join(DTYPES)}, got {dtype!r}.")
    if unknown := [name for name in changes if name not in stored]:
        raise ModelError(
            f"{adapter}: {len(unknown)} of its {len(changes)} targets are not in the base, such as {unknown[:3]}; "
            f"the base has names such as {list(stored)[:2]}. Is it the base that was trained on?"
        )
    target = DTYPES[dtype] if dtype else None
    return [
        merged(tensor, changes[name], target or tensor.dtype, device) if name in changes else copied(tensor, target)
        for name, tensor in stored.items()
    ]


def _main_dtype(tensors: list[NewTensor]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in TORCH_NAMES:
            sizes[tensor.dtype] += tensor.nbytes
    return sizes.most_common(1)[0][0]


def _copy_side_files(base: Path, adapter: Path, folder: Path) -> None:
    """Generation settings, licence and tokenizer. The adapter's tokenizer, if it has one, is the one trained on: of
    the base's only vocabulary files that it lacks are added, so that no setting of the base overrides it.
    """
    for file in sorted(base.iterdir()):
        legal = any(fnmatch(file.name, pattern) for pattern in LEGAL_FILES)
        setting = file.name in (*TOKENIZER_FILES, *TEMPLATE_FILES)
        tokenizer = is_tokenizer_file(file.name) and not (setting and has_tokenizer(adapter))
        if file.is_file() and (legal or tokenizer or file.name == "generation_config.json"):
            publish(file, folder)
    for file in sorted(adapter.iterdir()):
        if file.is_file() and is_tokenizer_file(file.name):
            publish(file, folder)


def _beside(out: Path) -> Path:
    """The nearest folder above `out` that is there already."""
    return next(folder for folder in out.resolve().parents if folder.is_dir())


def _copy_side_files_of_original(base: Path, adapter: Path, folder: Path, save_format: SaveFormat) -> None:
    """The same for a base with code of its own: as it was published, or as plain transformers wants it."""
    for file in sorted(base.iterdir()):
        legal = any(fnmatch(file.name, pattern) for pattern in LEGAL_FILES)
        if file.is_file() and (legal or file.name == "generation_config.json"):
            publish(file, folder)
    if save_format == "original":
        publish_original(base, folder)
    elif not has_tokenizer(adapter):
        load_tokenizer(str(base)).save_pretrained(folder)
    else:
        for file in sorted(adapter.iterdir()):
            if file.is_file() and is_tokenizer_file(file.name):
                publish(file, folder)


def _write_record(folder: Path, record: dict[str, Any], base: str, dtype: str) -> None:
    record = {"stage": "sft", "method": "lora", **record, "merged": True, "torch_dtype": TORCH_NAMES[dtype]}
    if not record.get("base_model"):
        record["base_model"] = {"name_or_path": base, "fingerprint": None}
    write_json(folder / RECORD, record)
    (folder / "README.md").write_text(model_card(record), encoding="utf-8")


def _compare_logits(base: Path, adapter: Path, merged_folder: Path, dtype: str, device: torch.device) -> float:
    """Largest absolute difference of the logits, (1, 64, vocabulary) or a score, of a probe, base + adapter to merged.

    All in fp32, by transformers and PEFT, so that what differs is the one rounding of the merged weights to `dtype`.
    How much that may be is measured, not guessed: PEFT's own merge, rounded alike, is the yardstick. Twice its
    difference is allowed, and 1e-4 of the largest logit for the order of summation.

    Raises:
        ModelError: the difference is larger than that.
    """
    from medtune.compat import quiet_bitsandbytes

    quiet_bitsandbytes()
    from peft import PeftModel

    layout = layout_of(merged_folder)
    config = layout.config if layout else read_json(merged_folder / "config.json")
    if not isinstance(config.get("vocab_size"), int):
        raise ModelError(f"{base / 'config.json'}: no vocab_size, so --verify has nothing to ask the model.")
    probe = (torch.arange(1, 65) * 7919 % config["vocab_size"])[None].to(device)
    head: Head = "score" if SCORE in model_tensors(merged_folder) else "tokens"

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(input_ids=probe).logits.float().cpu()

    def load(folder: Path) -> Any:
        model: Any = plain_model(folder, str(folder), head=head, dtype=torch.float32, use_safetensors=True)
        if head == "score":
            model.config.get_text_config().pad_token_id = None  # the probe's last token is scored, whichever it is
        return model.to(device)

    with _quiet():
        model = load(base)
        if model.get_input_embeddings().weight.shape[0] != config["vocab_size"]:  # trained with new tokens
            model.resize_token_embeddings(config["vocab_size"])
        if head == "tokens" and config.get("tie_word_embeddings") is False and model.config.tie_word_embeddings:
            model.config.tie_word_embeddings = False  # PEFT merges a tied weight into both of its uses
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        check_adapter(adapter, [name for name, _ in model.named_modules()])
        try:
            model = PeftModel.from_pretrained(model, adapter)
        except Exception as fault:  # PEFT raises nearly everything for a config it did not write
            raise ModelError(f"--verify: PEFT does not load {adapter} ({type(fault).__name__}).") from None
        wanted = logits(model)
        model = model.merge_and_unload()
        for weight in model.parameters():
            weight.data = weight.data.to(getattr(torch, TORCH_NAMES[dtype])).float()
        rounded = logits(model)
        del model, weight  # one model at a time
        found = logits(load(merged_folder))
    difference = (found - wanted).abs().max().item()
    bound = 2 * (rounded - wanted).abs().max().item() + 1e-4 * max(1.0, wanted.abs().max().item())
    if not difference <= bound:
        raise ModelError(
            f"--verify: the merged model's logits differ from base + adapter by {difference:.3g}, more than "
            f"rounding to {TORCH_NAMES[dtype]} explains ({bound:.3g}); nothing was written. Please report it."
        )
    return difference


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the progress bars and warnings of transformers and PEFT out of our few lines."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
