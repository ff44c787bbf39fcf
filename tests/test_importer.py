"""Old checkpoints: XTuner's and DeepSpeed's LoRA weights become an adapter, bit for bit, and no code of theirs runs."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers import tiny_llama_folder
from mmengine.logging import HistoryBuffer
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.serialization import safe_globals
from transformers import AutoModelForCausalLM

from medtune import importer
from medtune.cli import main
from medtune.errors import EnvironmentFault, ModelError
from medtune.importer import Placeholder, read_old_checkpoint
from medtune.shards import read_header

pytestmark = pytest.mark.slow  # each reads or trains in processes of its own

LAYERS = ["q_proj", "v_proj", "down_proj"]
CONFIG = """
_base_ = "sft"
pretrained_model_name_or_path = {base!r}
lora_r = 4
lora_alpha = 32
lora_target_modules = {layers!r}
prompt_template = "internlm_chat"
SYSTEM = "You are a pharmacist."
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_llama_folder(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tuned(base):
    """A PEFT model with trained LoRA weights, as XTuner builds it."""
    model = AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(model, LoraConfig(r=4, lora_alpha=32, target_modules=LAYERS, task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.1
    return model.eval()


@pytest.fixture
def config(base, tmp_path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(CONFIG.format(base=str(base), layers=LAYERS))
    return file


def xtuner_state(model) -> OrderedDict:
    """What XTuner's `SupervisedFinetune.state_dict` keeps of a LoRA model."""
    return OrderedDict((f"llm.{k}", v) for k, v in model.state_dict().items() if "lora_" in k)


def mmengine_file(file: Path, state_dict) -> Path:
    """What `Runner.save_checkpoint` of mmengine 0.10.7 writes."""
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    checkpoint = {
        "meta": {"epoch": 1, "iter": 2, "cfg": "raise SystemExit('ran')", "seed": 42, "time": "20240101_000000"},
        "state_dict": state_dict,
        "message_hub": {
            "log_scalars": OrderedDict({"train/loss": history, "train/lr": HistoryBuffer()}),
            "runtime_info": OrderedDict({"iter": 2, "best": np.float64(0.5), "sizes": np.arange(3)}),
            "resumed_keys": OrderedDict({"train/loss": True}),
        },
        "optimizer": {"state": {0: {"step": torch.tensor(2.0), "exp_avg": torch.zeros(4)}}, "param_groups": []},
        "param_schedulers": [{"last_step": 2, "_last_value": [np.float64(1e-4)]}],
    }
    torch.save(checkpoint, file)
    return file


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model(input_ids=torch.arange(3, 35)[None]).logits


def convert(*words: object) -> int:
    return main(["convert", "pth_to_hf", *map(str, words)])


def test_an_xtuner_pth_becomes_an_adapter_with_the_same_logits(base, tuned, config, tmp_path, capsys):
    pth = mmengine_file(tmp_path / "epoch_1.pth", xtuner_state(tuned))
    assert convert(config, pth, tmp_path / "hf") == 0
    assert "adapter_model.safetensors" in capsys.readouterr().out
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "hf").eval()
    assert torch.equal(logits(loaded), logits(tuned))
    assert (logits(tuned) - logits(AutoModelForCausalLM.from_pretrained(base).eval())).abs().max() > 0.1


def test_the_adapter_folder_says_what_it_is_and_brings_the_tokenizer(base, tuned, config, tmp_path):
    pth = mmengine_file(tmp_path / "epoch_1.pth", xtuner_state(tuned))
    assert convert(config, pth, tmp_path / "hf") == 0
    adapter = json.loads((tmp_path / "hf" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["peft_type"]) == (4, 32, "LORA")
    assert sorted(adapter["target_modules"]) == sorted(LAYERS)
    record = json.loads((tmp_path / "hf" / "medtune.json").read_text())
    assert (record["prompt_template"], record["system"]) == ("internlm_chat", "You are a pharmacist.")
    assert record["base_model"]["name_or_path"] == str(base) and record["base_model"]["fingerprint"]
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert main(["convert", "merge", str(base), str(tmp_path / "hf"), str(tmp_path / "merged")]) == 0


def test_a_deepspeed_folder_is_read_and_its_dtype_kept_unless_fp32_is_asked_for(tuned, config, tmp_path):
    folder = tmp_path / "iter_500.pth"
    folder.mkdir()
    state = OrderedDict((name, tensor.bfloat16()) for name, tensor in xtuner_state(tuned).items())
    torch.save({"module": state, "ds_version": "0.9.5", "buffer_names": []}, folder / "mp_rank_00_model_states.pt")
    read = read_old_checkpoint(folder)
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items()) and len(read) == len(state)
    assert convert(config, folder, tmp_path / "hf", "--fp32") == 0
    assert {tensor.dtype for tensor in read_header(tmp_path / "hf" / "adapter_model.safetensors")} == {"F32"}


def test_modules_to_save_keep_their_place(base, tuned, config, tmp_path):
    state = xtuner_state(tuned)
    head = torch.randn(12288, 64)
    state["llm.base_model.model.lm_head.modules_to_save.default.weight"] = head
    assert convert(config, mmengine_file(tmp_path / "a.pth", state), tmp_path / "hf") == 0
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "hf")
    assert torch.equal(loaded.base_model.model.lm_head.modules_to_save["default"].weight, head)


def test_weights_that_share_memory_are_read_each_for_itself(tmp_path):
    whole = torch.arange(6.0)
    torch.save({"state_dict": {"a": whole, "b": whole, "c": whole[2:4]}}, tmp_path / "x.pth")
    read = read_old_checkpoint(tmp_path / "x.pth")
    assert read["a"].tolist() == read["b"].tolist() == whole.tolist() and read["c"].tolist() == [2.0, 3.0]


# ---------------------------------------------------------------- full models


@pytest.fixture
def full(base):
    """A fully fine-tuned model in bf16, as XTuner's `SupervisedFinetune.state_dict` gives it; and the model."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
    torch.manual_seed(3)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.1
    return OrderedDict((f"llm.{name}", tensor) for name, tensor in model.state_dict().items()), model


def test_an_old_full_model_becomes_a_plain_model_folder_with_the_same_logits(base, full, config, tmp_path, capsys):
    state, model = full
    state["llm.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)  # as transformers once stored it
    pth = mmengine_file(tmp_path / "epoch_1.pth", state)
    assert convert(config, pth, tmp_path / "hf", "--max-shard-size", "1MB") == 0
    assert "model-00002-of-" in capsys.readouterr().out
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    assert loaded.dtype == torch.bfloat16
    assert torch.equal(logits(loaded), logits(model))
    assert (logits(loaded).float() - logits(AutoModelForCausalLM.from_pretrained(base).eval())).abs().max() > 0.1
    record = json.loads((tmp_path / "hf" / "medtune.json").read_text())
    assert (record["method"], record["torch_dtype"], record["prompt_template"]) == ("full", "bfloat16", "internlm_chat")
    assert (tmp_path / "hf" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert sorted(f.name for f in tmp_path.iterdir() if f.name.startswith((".", "medtune-import-"))) == []


def test_a_full_model_is_cast_to_fp32_when_asked(full, config, tmp_path):
    state, model = full
    assert convert(config, mmengine_file(tmp_path / "full.pth", state), tmp_path / "hf", "--fp32") == 0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert loaded.dtype == torch.float32
    assert all(torch.equal(p, q.float()) for p, q in zip(loaded.parameters(), model.parameters(), strict=True))


def test_what_a_full_model_lacks_or_has_too_much_is_told_in_one_line(refusal, full, tmp_path):
    state, _ = full
    del state["llm.model.norm.weight"]
    state["llm.model.extra.weight"] = torch.ones(2)
    state["llm.lm_head.weight"] = torch.ones(3, 64)
    line = refusal(mmengine_file(tmp_path / "full.pth", state))
    assert "1 missing, such as model.norm.weight; 1 not the base's, such as model.extra.weight" in line
    assert "1 of another shape, such as lm_head.weight [3, 64] for [12288, 64]" in line


def test_a_tied_lm_head_is_taken_once_and_refused_where_it_is_another(full, config, base, tmp_path, capsys):
    tied = shutil.copytree(base, tmp_path / "tied")
    AutoModelForCausalLM.from_pretrained(base, tie_word_embeddings=True).save_pretrained(tied)
    config.write_text(config.read_text().replace(str(base), str(tied)))
    state, _ = full
    other = dict(state)
    state["llm.lm_head.weight"] = state["llm.model.embed_tokens.weight"]
    assert convert(config, mmengine_file(tmp_path / "full.pth", state), tmp_path / "hf") == 0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert torch.equal(loaded.lm_head.weight, state["llm.lm_head.weight"])
    assert "lm_head.weight" not in {tensor.name for tensor in read_header(tmp_path / "hf" / "model.safetensors")}
    assert convert(config, mmengine_file(tmp_path / "full.pth", other), tmp_path / "other") == 2
    assert "1 not the base's, such as lm_head.weight" in capsys.readouterr().err


# ---------------------------------------------------------------- ZeRO-3


@dataclass
class StageEnum:
    """Stands for DeepSpeed's ZeroStageEnum and LossScaler: objects of classes that nobody here has."""

    value: int = 3


def zero_3_folder(folder: Path, state, ranks: int, groups: int = 1, frozen=(), shared=None, buffers=()) -> Path:
    """The files that DeepSpeed 0.18.9 writes under ZeRO-3, from whole tensors.

    Every parameter is padded to a multiple of the ranks and cut; a rank's pieces follow each other, and that row is cut
    into flat groups anywhere.
    """
    folder.mkdir()

    def piece(tensor, rank):
        length = -(-tensor.numel() // ranks)
        padded = torch.cat([tensor.flatten(), torch.full((length * ranks - tensor.numel(),), 99.0).to(tensor.dtype)])
        return padded[rank * length : (rank + 1) * length].clone()

    trained = [name for name in state if name not in (*frozen, *buffers, *(shared or {}))]
    for rank in range(ranks):
        model = {
            "module": {name: state[name] if name in buffers else torch.empty(0) for name in state},
            "buffer_names": list(buffers),
            "param_shapes": [OrderedDict((name, state[name].shape) for name in trained)],
            "frozen_param_shapes": {name: state[name].shape for name in frozen} if frozen else None,
            "frozen_param_fragments": {name: piece(state[name], rank) for name in frozen} if frozen else None,
            "shared_params": shared or {},
            "ds_config": {"zero_optimization": {"stage": 3}},
            "ds_version": "0.18.9",
        }
        row = torch.cat([piece(state[name].float(), rank) for name in trained])
        optimizer = {
            "optimizer_state_dict": {
                "zero_stage": StageEnum(),
                "loss_scaler": StageEnum(),
                "partition_count": ranks,
                "optimizer_state_dict": {"state": {0: {"step": 3, "exp_avg": torch.zeros_like(row)}}},
                "fp32_flat_groups": [part.clone() for part in row.tensor_split(groups)],
            },
            "ds_version": "0.18.9",
        }
        torch.save(model, folder / f"zero_pp_rank_{rank}_mp_rank_00_model_states.pt")
        with deepspeeds_name(StageEnum):
            torch.save(optimizer, folder / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    return folder


@contextmanager
def deepspeeds_name(kind):
    """Inside, a class is pickled as one of DeepSpeed's, which is not installed."""
    names = ["deepspeed", "deepspeed.runtime", "deepspeed.runtime.zero", "deepspeed.runtime.zero.config"]
    before, module = kind.__module__, SimpleNamespace(**{kind.__name__: kind})
    kind.__module__ = names[-1]
    try:
        with mock.patch.dict(sys.modules, dict.fromkeys(names, module)):
            yield
    finally:
        kind.__module__ = before


@pytest.mark.parametrize("ranks, groups", [(1, 1), (2, 1), (3, 4), (8, 2), (11, 3)])
def test_zero_3_pieces_are_laid_together_exactly(ranks, groups, tmp_path):
    torch.manual_seed(0)
    shapes = {"a": (3, 5), "b": (7,), "c": (1,), "d": (), "e": (4, 4), "frozen": (5, 3), "count": (2,)}
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    state["frozen"], state["count"] = state["frozen"].bfloat16(), torch.tensor([2, 3])
    state["tied"] = state["a"]
    folder = zero_3_folder(tmp_path / "x", state, ranks, groups, ["frozen"], {"tied": "a"}, ["count"])
    assert importer.main(str(folder), str(tmp_path / "out")) == 0  # in this process: another takes a second to start
    read = load_file(tmp_path / "out")
    assert {name: tensor.dtype for name, tensor in read.items()} == {name: t.dtype for name, t in state.items()}
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


def test_zero_3_adapters_and_full_models_are_converted(base, tuned, full, config, tmp_path):
    adapter = zero_3_folder(tmp_path / "iter_9.pth", xtuner_state(tuned), 2)
    assert convert(config, adapter, tmp_path / "hf") == 0
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "hf").eval()
    assert torch.equal(logits(loaded), logits(tuned))
    state, model = full
    assert convert(config, zero_3_folder(tmp_path / "iter_8.pth", state, 3), tmp_path / "full") == 0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "full", dtype=torch.bfloat16).eval()
    assert torch.equal(logits(loaded), logits(model))


def change(file: Path, *keys: object, to: object) -> None:
    """Put another value into a saved file."""
    with safe_globals([(Placeholder, "deepspeed.runtime.zero.config.StageEnum")]):
        holder = inner = torch.load(file, weights_only=True)
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    holder.get("optimizer_state_dict", {}).pop("loss_scaler", None)
    holder.get("optimizer_state_dict", {}).pop("zero_stage", None)
    torch.save(holder, file)


STATES = "optimizer_state_dict"


@pytest.mark.parametrize(
    ("kind", "keys", "value", "reason"),
    [
        ("optim", (STATES, "fp32_flat_groups", 0), torch.ones(3), "too few numbers"),
        ("optim", (STATES, "fp32_flat_groups"), [torch.ones(99)], "more numbers"),
        ("optim", (STATES, "fp32_flat_groups"), None, "no 'fp32_flat_groups'"),
        ("optim", (STATES, "fp32_flat_groups", 0), torch.ones(1).expand(1 << 40), "not the values"),
        ("optim", (STATES, "partition_count"), 4, "not of the 2 ranks"),
        ("model", ("param_shapes", 0, "a"), [3, 5], "a shape that is none"),
        ("model", ("param_shapes", 0, "a"), (1 << 40, 5), "too few numbers"),
        ("model", ("param_shapes",), {}, "no 'param_shapes'"),
        ("model", ("shared_params",), [1], "no 'shared_params'"),
        ("model", ("buffer_names",), ["nowhere"], "plain tensor"),
        ("model", ("frozen_param_shapes",), {"f": (4,)}, "no 'frozen_param_fragments'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_zero_3_states_that_do_not_fit_together_are_refused(kind, keys, value, reason, reader_says, tmp_path):
    state = {"a": torch.randn(3, 5), "b": torch.randn(7)}
    folder = zero_3_folder(tmp_path / "x", state, 2)
    change(next(folder.glob(f"*rank_0_*_{kind}_states.pt")), *keys, to=value)
    assert reason in reader_says(folder)


@pytest.mark.parametrize("lost", ["zero_pp_rank_1_mp_rank_00_model_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_*"])
def test_a_zero_3_folder_without_a_ranks_file_is_refused_with_the_way_out(lost, reader_says, tmp_path):
    folder = zero_3_folder(tmp_path / "x", {"a": torch.randn(3, 5)}, 2)
    next(folder.glob(lost)).unlink()
    assert "zero_to_fp32.py" in reader_says(folder)


# ---------------------------------------------------------------- refused


@pytest.fixture
def refusal(config, tmp_path, capsys):
    """The one line that converting a file is refused with."""

    def refuse(checkpoint: Path) -> str:
        capsys.readouterr()
        assert convert(config, checkpoint, tmp_path / "hf") == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "Traceback" not in error
        assert not (tmp_path / "hf").exists()
        return error

    return refuse


def test_another_rank_than_the_configs_is_refused(refusal, tuned, config, tmp_path):
    config.write_text(config.read_text().replace("lora_r = 4", "lora_r = 8"))
    line = refusal(mmengine_file(tmp_path / "epoch_1.pth", xtuner_state(tuned)))
    assert "rank 4" in line and "r=8" in line


def test_a_config_without_lora_is_refused(refusal, tuned, config, tmp_path):
    config.write_text('_base_ = "sft"\npretrained_model_name_or_path = "med-llama-tiny"\nmethod = "full"\n')
    assert "model.lora" in refusal(mmengine_file(tmp_path / "epoch_1.pth", xtuner_state(tuned)))


def test_lora_weights_that_are_no_adapter_are_refused(refusal, tmp_path):
    state = {"llm.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight": torch.ones(4, 64)}
    assert "lacks lora_A, lora_B" in refusal(mmengine_file(tmp_path / "half.pth", state))


@pytest.fixture
def reader_says(tmp_path, capsys):
    """What the reader says of a file it refuses, here without its own process, which takes a second to start."""

    def read(file: Path) -> str:
        assert importer.main(str(file), str(tmp_path / "out")) == importer.REFUSED
        assert not (tmp_path / "out").exists()
        said = capsys.readouterr().out
        assert said.count("\n") == 1
        return said

    return read


@pytest.mark.parametrize("content", [b"", b"not a zip", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(60)], ids=repr)
def test_what_torch_did_not_save_is_refused(content, reader_says, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    assert "damaged" in reader_says(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("saved", "reason"),
    [
        ([1, 2], "no weights"),
        ({"meta": {"iter": 1}}, "no weights"),
        ({"state_dict": {}}, "no weights"),
        ({"state_dict": {"a": 1}}, "plain tensor"),
        ({"state_dict": {3: torch.ones(2)}}, "plain tensor"),
        ({"state_dict": {"a": torch.ones(2).to_sparse()}}, "plain tensor"),
        ({"state_dict": {"a": HistoryBuffer()}}, "plain tensor"),
        ({"state_dict": {"a": torch.empty(0)}}, "not the values"),
        ({"state_dict": {"a": torch.ones(1).expand(1 << 40)}}, "not the values"),
    ],
    ids=["list", "none", "empty", "number", "unnamed", "sparse", "object", "no_elements", "a_terabyte_in_four_bytes"],
)
def test_what_holds_no_plain_weights_is_refused(saved, reason, reader_says, tmp_path):
    torch.save(saved, tmp_path / "x.pth")
    assert reason in reader_says(tmp_path / "x.pth")


class RunsAtLoad:
    """What a hostile file holds: an object that pickle makes by calling a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def test_a_file_that_names_code_is_refused_by_that_name_and_nothing_runs(refusal, tmp_path):
    import os

    canary = tmp_path / "canary"
    torch.save({"state_dict": {"a": torch.ones(2)}, "x": RunsAtLoad(os.mkdir, str(canary))}, tmp_path / "x.pth")
    line = refusal(tmp_path / "x.pth")
    assert "mkdir" in line and "could run code" in line
    assert not canary.exists()


def test_a_stood_in_function_is_never_called(tmp_path):
    """The names of honest packages are stood in for; the function behind such a name must not run either."""
    canary = tmp_path / "canary.npy"
    torch.save({"state_dict": {"a": torch.ones(2)}, "x": RunsAtLoad(np.save, str(canary), [1])}, tmp_path / "x.pth")
    assert read_old_checkpoint(tmp_path / "x.pth")["a"].tolist() == [1, 1]
    assert not canary.exists()


def test_a_file_in_the_current_folder_is_not_imported_by_the_reader(tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise SystemExit('a module of the current folder ran')")
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "x.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert list(read_old_checkpoint(Path("x.pth"))) == ["a"]


def test_the_same_file_is_refused_by_torch_without_the_placeholders(tuned, tmp_path):
    """Without this the tests above would prove nothing: mmengine's files hold what weights_only refuses."""
    pth = mmengine_file(tmp_path / "epoch_1.pth", xtuner_state(tuned))
    with pytest.raises(Exception, match="HistoryBuffer"):
        torch.load(pth, weights_only=True)
    with (
        safe_globals([(Placeholder, "mmengine.logging.history_buffer.HistoryBuffer")]),
        pytest.raises(Exception, match="numpy"),
    ):
        torch.load(pth, weights_only=True)


def test_a_full_disk_is_a_fault_of_the_machine_and_not_of_the_file(tmp_path, monkeypatch, capsys):
    torch.save({"state_dict": {"a": torch.ones(2)}}, tmp_path / "x.pth")
    full_disk = OSError(28, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(importer, "write_file", mock.Mock(side_effect=full_disk))
        ended = importer.main(str(tmp_path / "x.pth"), str(tmp_path / "out"))
    done = SimpleNamespace(returncode=ended, stdout=capsys.readouterr().out, stderr="")
    monkeypatch.setattr("subprocess.run", lambda *_, **__: done)
    with pytest.raises(EnvironmentFault, match=r"x\.pth.*No space left on device\. Make room"):
        read_old_checkpoint(tmp_path / "x.pth")


def test_reading_raises_a_model_error_where_nothing_is(tmp_path):
    with pytest.raises(ModelError, match="wanted a"):
        read_old_checkpoint(tmp_path / "absent.pth")
