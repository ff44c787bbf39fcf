"""Models of before transformers' own classes: the published arithmetic, and what is refused."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers import relative
from legacy_models import ORIGINALS, VOCAB, original_folder
from safetensors.torch import load_file, save_file

from medtune.errors import EnvironmentFault, ModelError
from medtune.models.identity import fingerprint
from medtune.models.legacy.families import layout_of
from medtune.models.legacy.layout import original
from medtune.models.legacy.loading import opened
from medtune.models.load import load_llm, model_folder, module_names
from medtune.shards import copied, load, write_model

IDS = (torch.arange(23) * 37 % VOCAB)[None]


@torch.no_grad()
def logits_of(folder, **options):
    model = load_llm(str(folder), torch_dtype="fp32", device="cpu", **options)
    return model, model.eval()(input_ids=IDS).logits


@pytest.mark.parametrize("as_bin", [False, True])
@pytest.mark.parametrize("family", ORIGINALS)
def test_an_original_model_computes_its_published_arithmetic_in_a_class_of_transformers(family, as_bin, tmp_path):
    folder = original_folder(tmp_path / family, family, as_bin)
    _, weights, published, architecture = ORIGINALS[family]
    model, found = logits_of(folder)
    assert type(model).__name__ == architecture
    assert relative(found, published(weights(), IDS)) < 1e-5
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("family", ORIGINALS)
def test_the_original_layout_comes_back_to_the_bit(family, tmp_path):
    folder = original_folder(tmp_path / family, family)
    (tmp_path / "new").mkdir()
    (tmp_path / "back").mkdir()
    with opened(folder) as tensors:
        write_model(tmp_path / "new", [copied(tensor) for tensor in tensors.values()], 10**9)
        back = original([copied(tensor) for tensor in tensors.values()], layout_of(folder), folder)
        write_model(tmp_path / "back", back, 10**9)
    wanted, found = load_file(folder / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    wanted.pop("transformer.rotary_pos_emb.inv_freq", None)
    if family == "baichuan2":
        wanted["lm_head.weight"] = torch.nn.functional.normalize(wanted["lm_head.weight"])
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def test_the_head_of_baichuan_2_goes_back_only_with_rows_of_norm_one(tmp_path):
    folder = original_folder(tmp_path / "base", "baichuan2")
    with opened(folder) as tensors:
        plain = [copied(tensor._replace(unit_rows=False)) for tensor in tensors.values()]
        with pytest.raises(ModelError, match=r"lm_head\.weight: .*norm"):
            write_model(tmp_path, original(plain, layout_of(folder), folder), 10**9)


@pytest.mark.parametrize("family", ORIGINALS)
def test_the_modules_are_named_without_reading_a_weight(family, tmp_path):
    folder = original_folder(tmp_path / family, family)
    (folder / "model.safetensors").unlink()
    assert "model.layers.1.self_attn.q_proj" in module_names(str(folder))


def test_the_fingerprint_is_that_of_the_original_files(tmp_path):
    one, other = (original_folder(tmp_path / name, "internlm2") for name in "ab")
    assert fingerprint(one) == fingerprint(other) is not None


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("internlm2", {"hidden_size": 64}, "does not describe these weights"),
        ("internlm2", {"num_hidden_layers": 3}, r"lacks 'model\.layers\.2\."),
        ("internlm2", {"num_hidden_layers": 1}, r"also holds 'model\.layers\.1\."),
        ("internlm2", {"num_key_value_heads": 4}, "does not describe these weights"),
        ("internlm2", {"rope_scaling": {"type": "yarn"}}, "rope_scaling is 'yarn'"),
        ("internlm", {"num_attention_heads": 5}, "not a multiple"),
        ("internlm", {"hidden_size": -1}, "'hidden_size' is -1"),
        ("internlm", {"bias": False}, "also holds"),
        ("qwen", {"no_bias": False}, "biases on all layers"),
        ("qwen", {"rotary_pct": 0.5}, "rotary_pct is 0.5"),
        ("chatglm", {"multi_query_attention": False}, "multi_query_attention"),
        ("chatglm", {"rope_ratio": 50}, "rope_ratio is 50"),
        ("chatglm", {"pre_seq_len": 128}, "P-tuning"),
        ("baichuan", {"architectures": ["InternLMForCausalLM"], "model_type": "internlm"}, "does not describe"),
    ],
)
def test_a_config_that_lies_or_asks_for_more_is_refused_in_one_line(family, changes, reason, tmp_path):
    folder = original_folder(tmp_path / family, family, **changes)
    with pytest.raises(ModelError, match=reason) as fault:
        logits_of(folder)
    assert "\n" not in str(fault.value) and str(folder) in str(fault.value)


def test_alibi_is_refused_with_the_reason_before_anything_is_loaded(tmp_path):
    folder = original_folder(tmp_path / "b13", "baichuan2")
    config = json.loads((folder / "config.json").read_text())
    config["model_max_length"] = config.pop("max_position_embeddings")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="ALiBi"):
        load_llm.precheck(pretrained_model_name_or_path=str(folder))


def test_an_original_model_is_quantised_as_it_is_read(tmp_path):
    from bitsandbytes.functional import quantize_4bit

    folder = original_folder(tmp_path / "q", "internlm2")
    model, _ = logits_of(folder, bits=4)
    weight = model.model.layers[1].self_attn.v_proj.weight
    with opened(folder) as tensors:
        wanted = load(tensors["model.layers.1.self_attn.v_proj.weight"])
    assert torch.equal(weight.data, quantize_4bit(wanted, quant_type="nf4", compress_statistics=True)[0])


def test_weights_in_8_bits_are_no_original_model(tmp_path):
    folder = original_folder(tmp_path / "f", "internlm2")
    weights = load_file(folder / "model.safetensors")
    weights["output.weight"] = weights["output.weight"].to(torch.int8)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"'output\.weight' is I8"):
        logits_of(folder)


def test_a_modelscope_id_is_fetched_by_its_library_or_names_the_command(tmp_path, monkeypatch):
    with pytest.raises(EnvironmentFault, match=r"modelscope://org/name: .*pip install modelscope"):
        model_folder("modelscope://org/name")
    asked = []

    def snapshot_download(name, revision, allow_file_pattern):
        asked.append((name, revision, "*.py" in allow_file_pattern))
        return str(original_folder(tmp_path / name, "internlm"))

    library = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "modelscope", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "modelscope.hub", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "modelscope.hub.snapshot_download", library)
    assert model_folder("modelscope://org/one", "v1.0.3") == tmp_path / "org/one"
    load_llm.precheck(pretrained_model_name_or_path="modelscope://org/two")  # checks, and fetches nothing
    monkeypatch.setenv("MEDTUNE_HUB", "modelscope")
    assert model_folder("org/three") == tmp_path / "org/three"
    assert asked == [("org/one", "v1.0.3", False), ("org/three", None, False)]


def test_a_bin_shard_that_names_code_is_refused_and_runs_nothing(tmp_path):
    folder = original_folder(tmp_path / "evil", "internlm", as_bin=True)
    torch.save({"x": Runs(str(folder / "ran"))}, folder / "pytorch_model-00002-of-00002.bin")
    with pytest.raises(ModelError, match="could run code"):
        logits_of(folder)
    assert not (folder / "ran").exists()


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")
