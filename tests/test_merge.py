"""Merging: the same logits as base + adapter in plain transformers + PEFT, and every wrong input refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from medtune import shards
from medtune.cli import main
from medtune.errors import EnvironmentFault, ModelError, UsageError
from medtune.merge import merge
from medtune.models.identity import fingerprint, model_files, model_tensors

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
ALL_LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROBE = torch.arange(3, 35)[None]


@pytest.fixture
def make_base(tmp_path, tiny_model_path):
    def make(name="base", dtype=torch.float32, tied=False, max_shard_size="2GB", seed=0, config=None) -> Path:
        config = config or LlamaConfig(
            vocab_size=97,
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.save_pretrained(tmp_path / name, max_shard_size=max_shard_size)
        for file in TOKENIZER:
            shutil.copyfile(tiny_model_path / file, tmp_path / name / file)
        return tmp_path / name

    return make


@pytest.fixture
def make_adapter(tmp_path):
    def make(base: Path, name="adapter", resize=None, record=True, **settings) -> Path:
        model = AutoModelForCausalLM.from_pretrained(base)
        if resize:
            model.resize_token_embeddings(resize)
        settings = {"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEARS, "task_type": "CAUSAL_LM", **settings}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = get_peft_model(model, LoraConfig(**settings))
            torch.manual_seed(1)
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.data += 0.1 * torch.randn_like(parameter)
            model.save_pretrained(tmp_path / name)
        if record:
            base_model = {"name_or_path": str(base), "fingerprint": fingerprint(base)}
            written = {"stage": "sft", "method": "lora", "base_model": base_model, "prompt_template": "chatml"}
            (tmp_path / name / "medtune.json").write_text(json.dumps({**written, "system": "You are a pharmacist."}))
        return tmp_path / name

    return make


@torch.no_grad()
def logits(folder: Path, adapter: Path | None = None, resize: int | None = None) -> torch.Tensor:
    """In plain transformers and PEFT, computed in fp32."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    if resize:
        model.resize_token_embeddings(resize)
    if adapter:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = PeftModel.from_pretrained(model, adapter)
    return model.eval()(input_ids=PROBE).logits


def assert_no_trace(out: Path) -> None:
    assert not out.exists()
    assert not [file for file in out.parent.iterdir() if file.name.startswith(".")]


KINDS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "rank_pattern": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 7},
        "alpha_pattern": {"^model.layers.0.*down_proj": 32, "v_proj": 1},
    },
    "dora": {"use_dora": True},
    "modules_to_save": {"modules_to_save": ["lm_head", "embed_tokens", "norm"]},
    "embedding": {"target_modules": ["embed_tokens", "lm_head", "q_proj"]},
    "embedding_dora": {"target_modules": ["embed_tokens", "k_proj"], "use_dora": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_logits_equal_base_plus_adapter_in_fp32(kind, make_base, make_adapter, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BLOCK", 500)  # several blocks per tensor
    base = make_base()
    adapter = make_adapter(base, **KINDS[kind])
    report = merge(base, adapter, tmp_path / "out")
    wanted = logits(base, adapter)
    assert (logits(tmp_path / "out") - wanted).abs().max() < 1e-5 * wanted.abs().max()
    assert (logits(base) - wanted).abs().max() > 0.1, "the adapter must matter, or this proves nothing"
    assert report.tensors == len(model_tensors(tmp_path / "out")) and report.changed >= 3 and not report.untied


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_base_stays_16_bit_and_each_weight_is_rounded_once(dtype, make_base, make_adapter, tmp_path):
    base = make_base(dtype=dtype)
    adapter = make_adapter(base)
    merge(base, adapter, tmp_path / "out")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter)
    wanted = model.merge_and_unload().state_dict()
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert ours.dtype == dtype
    eps = torch.finfo(dtype).eps
    for name, tensor in ours.state_dict().items():
        # Half a unit in the last place, and a hair for the order of summation in fp32.
        assert ((tensor.float() - wanted[name]).abs() <= wanted[name].abs() * eps * 0.5 + 1e-6).all(), name
    difference = (logits(tmp_path / "out") - logits(base, adapter)).abs().max()
    assert difference < 8 * eps * logits(base, adapter).abs().max()


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["embed_tokens"]},
        {"target_modules": ["lm_head"]},
        {"target_modules": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"modules_to_save": ["lm_head"]},
        {"modules_to_save": ["embed_tokens", "lm_head"]},
    ],
    ids=str,
)
def test_an_adapter_on_tied_embeddings_parts_them_and_keeps_the_logits(settings, make_base, make_adapter, tmp_path):
    base = make_base(tied=True)
    adapter = make_adapter(base, **settings)
    report = merge(base, adapter, tmp_path / "out", verify=True)
    assert report.untied
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    wanted = logits(base, adapter)
    assert (logits(tmp_path / "out") - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_an_adapter_that_leaves_tied_embeddings_alone_keeps_them_tied(make_base, make_adapter, tmp_path):
    base = make_base(tied=True)
    report = merge(base, make_adapter(base), tmp_path / "out")
    assert not report.untied and "lm_head.weight" not in model_tensors(tmp_path / "out")


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_of_the_adapter_reach_the_merged_model(tied, make_base, make_adapter, tmp_path):
    base = make_base(tied=tied)
    adapter = make_adapter(base, resize=101)
    report = merge(base, adapter, tmp_path / "out", verify=True)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 101
    wanted = logits(base, adapter, resize=101)
    assert (logits(tmp_path / "out") - wanted).abs().max() < 1e-5 * wanted.abs().max() and not report.untied


def test_conv1d_weights_are_merged_the_other_way_round(make_base, make_adapter, tmp_path):
    config = GPT2Config(vocab_size=97, n_positions=64, n_embd=48, n_layer=2, n_head=4, initializer_range=0.2)
    base = make_base(config=config)
    for use_dora in (False, True):
        adapter = make_adapter(base, f"adapter{use_dora}", target_modules=["c_attn", "c_fc"], use_dora=use_dora)
        out = tmp_path / f"out{use_dora}"
        merge(base, adapter, out)
        wanted = logits(base, adapter)
        assert (logits(out) - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_shards_keep_to_the_size_and_a_sharded_base_merges_alike(make_base, make_adapter, tmp_path):
    base, sharded = make_base(), make_base("sharded", max_shard_size="40KB")
    adapter = make_adapter(base)
    assert len(model_files(sharded)) > 3
    merge(base, adapter, tmp_path / "one")
    report = merge(sharded, adapter, tmp_path / "many", max_shard_size="30KB")
    weights = [file for file in report.files if file.suffix == ".safetensors"]
    assert len(weights) > 3
    assert all(sum(t.nbytes for t in shards.read_header(file)) <= 30_000 for file in weights)
    index = json.loads((tmp_path / "many" / shards.INDEX).read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in model_tensors(tmp_path / "many").values())
    assert torch.equal(logits(tmp_path / "one"), logits(tmp_path / "many"))


def test_the_adapters_tokenizer_wins_and_the_card_carries_no_paths(make_base, make_adapter, tmp_path):
    base = make_base()
    (base / "LICENSE").write_text("licence of the base")
    (base / "special_tokens_map.json").write_text("{}")
    (base / "tokenizer.model").write_text("vocabulary")
    adapter = make_adapter(base)
    for file in TOKENIZER[:2]:
        shutil.copyfile(base / file, adapter / file)
    (adapter / "chat_template.jinja").write_text("trained on this one")
    merge(base, adapter, tmp_path / "out")
    out = {file.name for file in (tmp_path / "out").iterdir()}
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "trained on this one"
    assert {"LICENSE", "tokenizer.model", "generation_config.json", "README.md"} <= out
    assert "special_tokens_map.json" not in out, "a setting of the base must not override the adapter's"
    record = json.loads((tmp_path / "out" / "medtune.json").read_text())
    assert record["merged"] is True and record["prompt_template"] == "chatml" and record["torch_dtype"] == "float32"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "You are a pharmacist." in card and "diagnos" in card and str(tmp_path) not in card


def test_a_dtype_can_be_asked_for(make_base, make_adapter, tmp_path):
    base = make_base(dtype=torch.bfloat16)
    adapter = make_adapter(base)
    report = merge(base, adapter, tmp_path / "out", dtype="fp32", verify=True)
    assert {tensor.dtype for tensor in model_tensors(tmp_path / "out").values()} == {"F32"}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    assert report.logits_difference < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_verify_fails_and_leaves_nothing_when_a_scale_is_off(dtype, make_base, make_adapter, tmp_path, monkeypatch):
    base = make_base(dtype=dtype)
    adapter = make_adapter(base)
    merge(base, adapter, tmp_path / "right", verify=True)
    from medtune.models import adapter as module

    monkeypatch.setattr(module, "_scale", lambda *_: 2.2)  # trained with 2.0
    with pytest.raises(ModelError, match="logits differ"):
        merge(base, adapter, tmp_path / "out", verify=True)
    assert_no_trace(tmp_path / "out")


def test_another_base_is_refused_unless_asked_for(make_base, make_adapter, tmp_path):
    base, other = make_base(), make_base("other", seed=5)
    adapter = make_adapter(base)
    with pytest.raises(ModelError, match="not the base"):
        merge(other, adapter, tmp_path / "out")
    assert_no_trace(tmp_path / "out")
    merge(other, adapter, tmp_path / "out", any_base=True)


def test_a_base_of_other_shapes_is_refused(make_base, make_adapter, tmp_path, tiny_model_path):
    adapter = make_adapter(make_base())
    with pytest.raises(ModelError, match="does not fit"):
        merge(tiny_model_path, adapter, tmp_path / "out", any_base=True)
    assert_no_trace(tmp_path / "out")


def test_an_adapter_that_matches_nothing_is_refused(make_base, make_adapter, tmp_path):
    base = make_base(config=GPT2Config(vocab_size=97, n_positions=64, n_embd=48, n_layer=2, n_head=4))
    adapter = make_adapter(make_base("llama"), record=False)
    with pytest.raises(ModelError, match=r"14 of its 14 targets are not in the base"):
        merge(base, adapter, tmp_path / "out")


@pytest.mark.parametrize("place", ["base", "base/inside", "adapter", "adapter/inside", "full"])
def test_out_must_be_new_and_apart_from_its_sources(place, make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="name a new folder"):
        merge(base, adapter, tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_out_is_filled(make_base, make_adapter, tmp_path):
    base = make_base()
    (tmp_path / "out").mkdir()
    merge(base, make_adapter(base), tmp_path / "out")
    assert model_files(tmp_path / "out")


def test_a_model_without_any_tokenizer_is_refused(make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    (base / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        merge(base, adapter, tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "longer", "header", "length", "missing", "empty"])
def test_a_damaged_shard_is_named(damage, make_base, make_adapter, tmp_path):
    base = make_base(max_shard_size="100KB")
    adapter = make_adapter(base)
    shard = model_files(base)[1]
    content = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        broken = {
            "cut": content[:-10],
            "longer": content + b"more",
            "header": content[:30] + b"\xff{{" + content[33:],
            "length": b"\xff" * 8 + content[8:],
            "empty": b"",
        }
        shard.write_bytes(broken[damage])
    with pytest.raises(ModelError, match=shard.name):
        merge(base, adapter, tmp_path / "out", any_base=True)
    assert_no_trace(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "IA3"}, "IA3"),
        ({"bias": "all"}, "bias"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"r": 8}, "does not fit r=8"),
        ({"rank_pattern": {"(": 4}}, "regular expression"),
        ({"use_dora": True}, "lacks"),
    ],
)
def test_an_adapter_that_cannot_be_merged_exactly_is_refused(change, said, make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(ModelError) as fault:
        merge(base, adapter, tmp_path / "out")
    assert said in str(fault.value) and "\n" not in str(fault.value)
    assert_no_trace(tmp_path / "out")


def test_values_that_are_not_finite_are_refused_and_named(make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    file = adapter / "adapter_model.safetensors"
    tensor = shards.read_header(file)[0]
    content = bytearray(file.read_bytes())
    content[tensor.start : tensor.start + 4] = b"\x00\x00\xc0\x7f"  # NaN
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"down_proj.weight: a value is not finite"):
        merge(base, adapter, tmp_path / "out")
    assert_no_trace(tmp_path / "out")


def test_a_quantised_base_and_a_full_model_as_adapter_are_refused(make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    with pytest.raises(ModelError, match="full model"):
        merge(base, base, tmp_path / "out")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ModelError, match="quantised"):
        merge(base, adapter, tmp_path / "out")


def test_a_write_that_does_not_read_back_fails_and_leaves_nothing(make_base, make_adapter, tmp_path, monkeypatch):
    base = make_base()
    adapter = make_adapter(base)
    write = shards._write

    def damaged(file, *rest):
        written = write(file, *rest)
        content = bytearray(file.read_bytes())
        content[-5] ^= 1
        file.write_bytes(content)
        return written

    monkeypatch.setattr(shards, "_write", damaged)
    with pytest.raises(ModelError, match="reads back differently"):
        merge(base, adapter, tmp_path / "out")
    assert_no_trace(tmp_path / "out")


def test_what_a_killed_merge_left_does_not_load_and_is_cleared_by_the_next(make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)
    left = tmp_path / ".out.partial"
    left.mkdir()
    (left / "model-00007-of-00009.safetensors").write_bytes(b"half")
    merge(base, adapter, tmp_path / "out")
    assert not left.exists() and not (tmp_path / "out" / "model-00007-of-00009.safetensors").exists()


def test_two_merges_into_one_folder_do_not_mix(make_base, make_adapter, tmp_path):
    base = make_base()
    adapter = make_adapter(base)

    def second(done: int, total: int) -> None:
        with pytest.raises(UsageError, match="another medtune"):
            merge(base, adapter, tmp_path / "out")

    merge(base, adapter, tmp_path / "out", on_progress=second)
    assert model_files(tmp_path / "out")


def test_a_missing_gpu_and_a_full_disk_exit_with_3(make_base, make_adapter, tmp_path, monkeypatch):
    base = make_base()
    adapter = make_adapter(base)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(EnvironmentFault, match="no such GPU"):
        merge(base, adapter, tmp_path / "out", device="cuda")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(EnvironmentFault, match="GB free"):
        merge(base, adapter, tmp_path / "out")
    assert EnvironmentFault.exit_code == 3
    assert_no_trace(tmp_path / "out")


def test_the_command_line_merges_and_reports(make_base, make_adapter, tmp_path, capsys):
    base = make_base(tied=True)
    adapter = make_adapter(base, target_modules=["lm_head"])
    words = ["convert", "merge", str(base), str(adapter), str(tmp_path / "out"), "--max-shard-size", "50KB", "--verify"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "1 of them changed" in said and "read back" in said and "parts them" in said and "logits differ" in said
    assert main(words) == 2
    assert "already there and not empty" in capsys.readouterr().err


def test_a_fingerprint_knows_the_weights_and_not_their_files(make_base, tmp_path):
    one, same, other = make_base("one"), make_base("same", max_shard_size="20KB"), make_base("other", seed=3)
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    assert fingerprint(make_base("bf16", dtype=torch.bfloat16)) != fingerprint(one)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pytorch_model.bin").write_bytes(b"pickle")
    assert fingerprint(tmp_path / "old") is None
    with pytest.raises(ModelError, match=r"pickled .bin"):
        model_files(tmp_path / "old")


def test_an_index_cannot_point_outside_its_folder(make_base, tmp_path):
    base = make_base(max_shard_size="100KB")
    index = json.loads((base / shards.INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "../secret.safetensors"
    (base / shards.INDEX).write_text(json.dumps(index))
    with pytest.raises(ModelError, match="weight_map"):
        model_files(base)
