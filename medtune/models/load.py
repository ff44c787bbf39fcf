"""Find and load base models and tokenizers: a local folder, the embedded default, or a hub id."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medtune.build import checked_by
from medtune.data.hubs import MODELSCOPE, on_modelscope
from medtune.errors import EnvironmentFault, MedtuneError, ModelError
from medtune.models.checks import check_model
from medtune.models.identity import model_tensors
from medtune.models.legacy.families import layout_of
from medtune.models.legacy.loading import class_config, from_original
from medtune.models.legacy.tokenizer import original_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ASSETS = Path(__file__).resolve().parent.parent / "assets"
EMBEDDED = ("med-llama-tiny",)
COMMIT = re.compile("[0-9a-f]{40}")

DtypeName = Literal["auto", "fp32", "bf16", "fp16"]
Head = Literal["tokens", "score"]
"""What a model says of a text: the next token, or a score."""
SCORE = "score.weight"

# Families whose packed rows equal each sample alone; tests/models/test_attention.py shows it for every one of them.
# transformers' `_supports_attention_backend` does not tell: of the models that carry it some leak from sample to sample
# (Nemotron, LFM 3, MiniMax), some pass arguments that our attention would drop (GPT-OSS), some keep their window in the
# mask alone (Qwen2-MoE).
PACKED_FAMILIES = (  # noqa: SIM905
    "apertus arcee cohere cohere2 ernie4_5 ernie4_5_moe exaone4 gemma gemma2 gemma3_text glm glm4 glm4_moe gpt_neox "
    "granite granitemoe granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe internlm3 llama minimax_m2 ministral "
    "ministral3 mistral mixtral nanochat olmo olmo2 olmo3 olmoe phi phi3 qwen2 qwen3 qwen3_moe seed_oss "
    "smollm3 starcoder2"
).split()

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_EVERYTHING_ELSE = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")


def model_folder(name: str | Path, revision: str | None = None, with_code: bool = False) -> Path:
    """Return the local folder of a model named by path, embedded name or hub id (downloaded if need be).

    A download leaves out the repository's Python files unless `with_code` asks for them.

    Raises:
        ModelError: no such folder, or it is not a model folder, or the hub does not have it or cannot be reached.
    """
    folder = ASSETS / name if str(name) in EMBEDDED else Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            adapter = (folder / "adapter_config.json").is_file()
            hint = "it is an adapter: name its base model here" if adapter else "a model folder has one"
            raise ModelError(f"{name}: no config.json in this folder; {hint}.")
        return folder
    wanted = [*_WEIGHTS, *_EVERYTHING_ELSE, *(["*.py"] if with_code else [])]
    if (there := on_modelscope(str(name))) is not None:
        return _from_modelscope(there, revision, wanted)
    if not _is_hub_id(str(name)):
        raise ModelError(f"{name}: no such folder. Name a model folder, a hub id, or one of {', '.join(EMBEDDED)}.")
    from huggingface_hub import snapshot_download

    try:
        fetched = Path(snapshot_download(str(name), revision=revision, allow_patterns=wanted))
        if not any(fetched.glob("*.safetensors")):
            fetched = Path(
                snapshot_download(str(name), revision=revision, allow_patterns=["*.bin", "*.bin.index.json"])
            )
    except Exception as fault:  # the hub library raises many kinds; to the user all mean "not to be had"
        reason = str(fault).strip().splitlines()[0] if str(fault).strip() else type(fault).__name__
        raise ModelError(
            f"{name}: no such folder here, and the hub did not give it ({reason}). Download the model where there is "
            "a network, and name its folder."
        ) from None
    return fetched


def _from_modelscope(name: str, revision: str | None, wanted: list[str]) -> Path:
    try:
        from modelscope.hub.snapshot_download import snapshot_download
    except ImportError:
        raise EnvironmentFault(
            f"{MODELSCOPE}{name}: the modelscope library is not installed. Run `pip install modelscope`."
        ) from None
    try:
        fetched = Path(snapshot_download(name, revision=revision, allow_file_pattern=wanted))
        if not any(fetched.glob("*.safetensors")):
            bins = ["*.bin", "*.bin.index.json"]
            fetched = Path(snapshot_download(name, revision=revision, allow_file_pattern=bins))
    except Exception as fault:  # the library raises many kinds
        raise ModelError(f"{MODELSCOPE}{name}: not to be had: {_first_line(fault)}") from None
    return fetched


def _is_hub_id(name: str) -> bool:
    parts = name.split("/")
    return len(parts) <= 2 and all(parts) and not name.startswith((".", "~", "/"))


def _precheck_name(
    pretrained_model_name_or_path: str, trust_remote_code: bool = False, revision: str | None = None, **_: Any
) -> Path | None:
    """A local name must be a model folder; a hub id is looked up only when it is loaded, its code only if pinned."""
    name = pretrained_model_name_or_path
    on_a_hub = _is_hub_id(name) or on_modelscope(name) is not None
    looks_local = Path(name).expanduser().exists() or name in EMBEDDED or not on_a_hub
    if trust_remote_code and not looks_local and not COMMIT.fullmatch(revision or ""):
        raise ModelError(
            f"{name}: trust_remote_code runs the code of this repository, so name the commit that you have read: "
            "model_revision of 40 hexadecimal digits, not a branch or tag, which can change."
        )
    return model_folder(name) if looks_local else None


def _precheck_llm(pretrained_model_name_or_path: str, device: str = "auto", **rest: Any) -> None:
    folder = _precheck_name(pretrained_model_name_or_path, **rest)
    if folder is not None and not rest.get("trust_remote_code"):
        layout_of(folder)  # refuses what no class of transformers computes
    if folder is not None and not any(folder.glob("*.bin")):
        model_tensors(folder)  # reads the headers: every weight file is there and whole
    pick_device(device)


def _precheck_tokenizer(pretrained_model_name_or_path: str, **rest: Any) -> None:
    _precheck_name(pretrained_model_name_or_path, **rest)
    folder = ASSETS / pretrained_model_name_or_path
    folder = folder if pretrained_model_name_or_path in EMBEDDED else Path(pretrained_model_name_or_path).expanduser()
    if folder.is_dir() and not has_tokenizer(folder):
        raise ModelError(
            f"{pretrained_model_name_or_path}: the folder has no tokenizer (tokenizer.json, tokenizer.model or "
            "vocab.json). Set tokenizer_name_or_path to a folder that has it."
        )


def has_tokenizer(folder: Path) -> bool:
    """True if a folder holds tokenizer files."""
    return any(
        (folder / name).is_file()
        for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "qwen.tiktoken")
    )


@checked_by(_precheck_tokenizer)
def load_tokenizer(
    pretrained_model_name_or_path: str, *, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedTokenizerBase:
    """Load a tokenizer; the same sources as `model_folder`, but a folder with tokenizer files alone will do.

    Raises:
        ModelError: no tokenizer there.
    """
    from transformers import AutoTokenizer

    path = Path(pretrained_model_name_or_path).expanduser()
    folder = path if path.is_dir() else model_folder(pretrained_model_name_or_path, revision, trust_remote_code)
    if not has_tokenizer(folder):
        raise ModelError(
            f"{pretrained_model_name_or_path}: the folder has no tokenizer (tokenizer.json, tokenizer.model or "
            "vocab.json). Set tokenizer_name_or_path to a folder that has it."
        )
    if (folder / "config.json").exists():  # transformers reads it along
        check_model(folder)
    try:
        if not trust_remote_code and (tokenizer := original_tokenizer(folder)) is not None:
            return tokenizer
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except MedtuneError:
        raise
    except Exception as fault:  # transformers and tokenizers raise nearly everything for files they did not write
        raise ModelError(
            f"{pretrained_model_name_or_path}: the tokenizer does not load: {_first_line(fault)}"
        ) from None


@checked_by(_precheck_llm)
def load_llm(
    pretrained_model_name_or_path: str,
    *,
    torch_dtype: DtypeName = "auto",
    head: Head = "tokens",
    bits: Literal[4, 8] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    device_map: str | dict[str, Any] | None = None,
    offload_folder: str | None = None,
    trust_remote_code: bool = False,
    revision: str | None = None,
) -> PreTrainedModel:
    """Load a language model for training or generation.

    Args:
        pretrained_model_name_or_path: a folder, a hub id, or an embedded name.
        torch_dtype: of the weights; "auto" is bf16 on a GPU that has it, fp16 on one that has not, fp32 on a CPU.
        head: "tokens" for a causal language model; "score" for one with a score in place of its vocabulary. The score
            begins at random if the folder has none.
        bits: 4 (NF4, double quantised) or 8 load the weights quantised by bitsandbytes, for QLoRA and chat.
        device: where to put it; "auto" is the GPU of this process if there is one.
        device_map: transformers' placement over several devices, in place of `device`.
        offload_folder: where `device_map` may put what fits nowhere.
        trust_remote_code: run modelling code from the model's own repository. Off unless a config turns it on.
        revision: commit, tag or branch of a hub id.

    Raises:
        ModelError: not a model, or one that this transformers cannot load.
        EnvironmentFault: a GPU was asked for and there is none.
    """
    from medtune.compat import brief_bars, keep_4bit_weights_on_cpu, quiet_bitsandbytes

    quiet_bitsandbytes()
    from transformers.utils.logging import disable_progress_bar

    from medtune.models import attention

    if sys.stderr.isatty():
        brief_bars()
    else:
        disable_progress_bar()

    target = pick_device(device)
    dtype = pick_dtype(torch_dtype, target)
    folder = model_folder(pretrained_model_name_or_path, revision, trust_remote_code)
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
    if bits is not None:
        options["quantization_config"] = _quantization(bits, dtype, head)
    options["device_map"] = device_map if device_map is not None else {"": target}
    if offload_folder is not None:
        options["offload_folder"] = offload_folder
    model = plain_model(folder, str(pretrained_model_name_or_path), head=head, **options)
    model.name_or_path = str(pretrained_model_name_or_path)
    model.config._name_or_path = str(pretrained_model_name_or_path)
    if bits == 4:
        keep_4bit_weights_on_cpu(model)
    if supports_packed_rows(model):
        model.set_attn_implementation(attention.NAME)
    return model


def plain_model(
    folder: Path, name: str, trust_remote_code: bool = False, head: Head = "tokens", **options: Any
) -> PreTrainedModel:
    """A model as transformers loads it from a folder; `name` stands for it in messages.

    Raises:
        ModelError: it does not load, is refused (`models.checks`), or lacks tensors.
    """
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from medtune.compat import quiet_missing_score

    check_model(folder)
    layout = None if trust_remote_code else layout_of(folder)
    maker: Any = AutoModelForCausalLM
    if head == "score":
        maker, options = AutoModelForSequenceClassification, {"num_labels": 1, **options}
    try:
        with quiet_missing_score() if head == "score" else nullcontext():
            if layout is not None:
                loaded: Any = from_original(folder, layout.config, maker, output_loading_info=True, **options)
            else:
                loaded = maker.from_pretrained(
                    folder, trust_remote_code=trust_remote_code, output_loading_info=True, **options
                )
    except MedtuneError:
        raise
    except Exception as fault:  # transformers raises nearly everything for files it did not write
        if type(fault).__name__ == "OutOfMemoryError":
            raise
        raise ModelError(f"{name}: the model does not load: {_first_line(fault)}") from None
    model, told = loaded
    missing = sorted(set(told["missing_keys"]) - ({SCORE} if head == "score" else set()))
    if missing:  # transformers would go on with random ones
        raise ModelError(f"{name}: {len(missing)} tensors are missing, such as {missing[0]}.")
    return model


def module_names(name: str) -> list[str] | None:
    """Names of a model's modules, from its config alone, without a weight; None for a hub id, which is not fetched."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = _precheck_name(name)
    if folder is None:
        return None
    try:
        with torch.device("meta"):
            layout = layout_of(folder)
            config = (
                class_config(layout.config) if layout else AutoConfig.from_pretrained(folder, trust_remote_code=False)
            )
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, OSError, KeyError, AttributeError, TypeError, RuntimeError):
        return None  # loading it will say what is wrong
    return [name for name, _ in model.named_modules()]


def supports_packed_rows(model: PreTrainedModel) -> bool:
    """True if our attention can stand in for the model's own; others are trained on padded rows, one per sample."""
    return model.config.model_type in PACKED_FAMILIES


def pick_device(device: str = "auto") -> str:
    """Name the device: "cuda:LOCAL_RANK" or "cpu".

    Raises:
        EnvironmentFault: "cuda" was asked for and there is none.
    """
    import os

    import torch

    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if device.startswith("cuda"):
        raise EnvironmentFault("a GPU was asked for, but torch sees none. Use the CPU, or see `medtune doctor`.")
    return "cpu"


def pick_dtype(name: str, device: str) -> torch.dtype:
    """Return the torch dtype for "auto", "fp32", "bf16", "fp16" on a device."""
    import torch

    names = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if name in names:
        return names[name]
    if name != "auto":
        raise ModelError(f"torch_dtype {name!r} is none of auto, {', '.join(names)}.")
    if device.startswith("cpu"):
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _quantization(bits: int, dtype: torch.dtype, head: Head) -> Any:
    from transformers import BitsAndBytesConfig

    whole = ["score"] if head == "score" else None  # None: the head over the vocabulary
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=whole)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=whole,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype if dtype.itemsize == 2 else None,
    )


def _first_line(fault: BaseException) -> str:
    text = " ".join(str(fault).split())
    return text[:300] or type(fault).__name__
