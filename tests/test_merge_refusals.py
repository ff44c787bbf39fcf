"""Merging: every wrong input refused in one line, nothing half-written; and the fingerprint that tells bases apart."""
# ruff: noqa: F811  (a fixture is imported and then named as an argument)

from __future__ import annotations

import json
import shutil

import pytest
import torch
from merge_models import assert_no_trace, make_adapter, make_base  # noqa: F401
from transformers import GPT2Config

from medtune import shards
from medtune.cli import main
from medtune.errors import EnvironmentFault, ModelError, UsageError
from medtune.merge import merge
from medtune.models.identity import fingerprint, model_files


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
    """T19: fails when an adapter is merged into quantised weights."""
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
