"""What a downloaded model or adapter folder may not ask for. Its JSON files are data; these entries make them more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medtune.errors import CONTROLS, ModelError
from medtune.files import read_json
from medtune.limits import OverLimit, limited
from medtune.shards import read_header

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
MODEL_CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
SLACK = 8  # by which a rank may pass the largest among the tensors: `r` may be one that no module has
MOST_LAYERS = 1000  # of a model whose layers an adapter repeats


def check_model(folder: Path) -> None:
    """Refuse a model folder that would have transformers fetch code, or load another model than the one in it.

    Raises:
        ModelError: its JSON files are damaged, hold control characters or name an implementation on a hub
            (CVE-2026-4372), or an adapter lies in the folder too, whose base transformers would load in its place.
    """
    for file in (folder / MODEL_CONFIG, folder / GENERATION_CONFIG):
        for key, value in _entries(read_json(file) if file.exists() else {}):
            texts = [key, value] if isinstance(value, str) else [key]
            if any(map(CONTROLS.search, texts)):  # other libraries log them as they are
                raise ModelError(f"{file}: {key!r} holds control characters, which no model's settings do.")
            if "_implementation" in key and isinstance(value, str) and re.search(r"[/:@]", value):
                raise ModelError(f"{file}: {key!r} names code on a hub, which medtune does not run; take it out.")
    if (folder / ADAPTER_CONFIG).exists():
        raise ModelError(
            f"{folder}: a model and an {ADAPTER_CONFIG} in one folder; transformers would load the base that the "
            "adapter names. Move the adapter into a folder of its own."
        )


def check_adapter(folder: Path, modules: Iterable[str] = ()) -> dict[str, Any]:
    """Refuse an adapter that is more than LoRA, larger than its file, or whose patterns take for ever.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        modules: names of the base's modules; those that the adapter itself names are looked at in any case.

    Returns: what its adapter_config.json says.

    Raises:
        ModelError: another kind of adapter, one that imports a module by name, a rank or number of layers that its
            tensors do not have, or a pattern that is none or too slow.
    """
    file = folder / ADAPTER_CONFIG
    config = read_json(file)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{file}: its peft_type is {config.get('peft_type')!r}, wanted 'LORA'.")
    if config.get("megatron_config"):  # PEFT would import whatever module `megatron_core` names
        raise ModelError(f"{file}: made for Megatron-LM, which medtune does not run.")
    stored = read_header(folder / ADAPTER_WEIGHTS)
    named = {tensor.name.removeprefix("base_model.model.").partition(".lora_")[0] for tensor in stored}
    largest = max((tensor.shape[0] for tensor in stored if ".lora_" in tensor.name and tensor.shape), default=0)
    try:
        ranks = [config["r"], *(config.get("rank_pattern") or {}).values()]
        num_layers = sum(end - start for start, end in config.get("layer_replication") or [])
        if not all(0 < rank <= SLACK * largest for rank in ranks) or num_layers > MOST_LAYERS:
            raise ModelError(f"{file}: ranks {ranks[:3]} and its layers do not fit the tensors beside it.")
        with limited():
            for pattern in _patterns(config):
                for name in sorted(named.union(modules)):
                    re.match(pattern, name)
    except OverLimit:
        raise ModelError(f"{file}: one of its patterns takes too long on the names of the model's layers.") from None
    except (re.error, OverflowError, RecursionError):
        raise ModelError(f"{file}: one of its patterns is not a regular expression.") from None
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ModelError(f"{file}: its ranks, layers or patterns are not of the type that PEFT writes.") from None
    return config


def _patterns(config: dict[str, Any]) -> Iterator[str]:
    """Regular expressions as PEFT makes them of an adapter's settings."""
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config.get(key), str):
            yield rf"{config[key]}\Z"
    for key in ("rank_pattern", "alpha_pattern"):
        yield from (rf"(.*\.)?({name})$" for name in config.get(key) or {})
    layers = config.get("layers_pattern") or []
    yield from (rf".*\.[^.]*{name}\.(\d+)\." for name in ([layers] if isinstance(layers, str) else layers))


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a JSON object, at any depth."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield key, child
            yield from _entries(child)
    elif isinstance(value, list):
        for child in value:
            yield from _entries(child)
