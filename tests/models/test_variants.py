"""Variants of LoRA and of the input: rsLoRA, DoRA, PiSSA, NEFTune; what they compute, save and resume."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from helpers import ragged_samples, run_loop, scalars, small_config, small_run, tiny_llama, tiny_llama_folder
from helpers import write_questions as questions
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from medtune.build import check
from medtune.data.collate import flatten
from medtune.engine.train import build_runner, prepare_inputs
from medtune.merge import merge
from medtune.models import attention, pissa
from medtune.models.sft import SupervisedFinetune

SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("rslora", "dora")]
IDS = torch.arange(10, 40)[None]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return questions(tmp_path_factory.mktemp("data") / "questions.jsonl")


@pytest.fixture(scope="module", params=[*SLOW, "pissa"])
def run(request, tmp_path_factory, model, data):
    """(variant, folder, Runner) of a run of 4 steps with a checkpoint at each second one."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    settings = {"lora_variant": request.param, "save_steps": 2, "lora_dropout": 0.2}
    return request.param, folder, small_run(folder, model, data, **settings)


def base():
    llm = tiny_llama()
    llm.set_attn_implementation(attention.NAME)
    return llm


def logits_of(llm):
    with torch.no_grad():
        return llm.eval()(IDS).logits


# ---------------------------------------------------------------- saved, merged, resumed


def test_the_saved_adapter_on_the_original_base_is_the_trained_model(run, model):
    variant, folder, runner = run
    wanted = logits_of(runner.model.llm)
    original = AutoModelForCausalLM.from_pretrained(model)
    assert not torch.allclose(logits_of(original), wanted, atol=1e-3)  # it was trained
    plain = PeftModel.from_pretrained(original, folder / "iter_4.pth")
    torch.testing.assert_close(logits_of(plain), wanted, rtol=1e-5, atol=1e-5)
    config = json.loads((folder / "iter_4.pth" / "adapter_config.json").read_text())
    wanted_config = {"rslora": (4, 8, True, False), "dora": (4, 8, False, True), "pissa": (8, 16, False, False)}[
        variant
    ]
    assert (config["r"], config["lora_alpha"], config["use_rslora"], config["use_dora"]) == wanted_config
    assert config["init_lora_weights"] is True


def test_the_merged_model_is_the_trained_model(run, model, tmp_path):
    _, folder, runner = run
    merge(model, folder / "iter_4.pth", tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(merged), logits_of(runner.model.llm), rtol=1e-5, atol=2e-5)


def test_2_steps_and_then_2_more_equal_4_in_one_piece(run, model, data, tmp_path):
    variant, folder, whole = run
    shutil.copytree(folder / "iter_2.pth", tmp_path / "iter_2.pth")
    settings = {"lora_variant": variant, "save_steps": 2, "lora_dropout": 0.2}
    resumed = small_run(tmp_path, model, data, resume="auto", **settings)
    assert scalars(resumed) == scalars(whole)[2:]
    for name in ("adapter_model", "optimizer", "rank_00000"):
        halves = [(place / "iter_4.pth" / f"{name}.safetensors").read_bytes() for place in (tmp_path, folder)]
        assert halves[0] == halves[1], name


# ---------------------------------------------------------------- what each computes


def stage(variant=None, noise=None, seed=1):
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    llm = base()
    torch.manual_seed(seed)
    return SupervisedFinetune(llm, lora, False, "fp32", noise, lora_variant=variant).train()


def test_rslora_scales_by_the_square_root_of_the_rank():
    layer = stage("rslora").llm.base_model.model.model.layers[0].mlp.up_proj
    assert layer.scaling["default"] == pytest.approx(8 / math.sqrt(4))
    assert stage().llm.base_model.model.model.layers[0].mlp.up_proj.scaling["default"] == 8 / 4


def test_dora_trains_a_magnitude_for_each_output():
    names = [name for name in stage("dora").trainable_parameters() if "magnitude" in name]
    assert len(names) == 2 * 7  # layers, projections


def test_pissa_begins_as_the_base_model_with_its_principal_part_in_the_adapter():
    made, plain = stage("pissa"), base()
    torch.testing.assert_close(logits_of(made.llm), logits_of(plain), rtol=1e-4, atol=1e-4)
    layer = made.llm.base_model.model.model.layers[0].mlp.up_proj
    original = plain.model.layers[0].mlp.up_proj.weight
    left = layer.base_layer.weight.detach().square().sum()
    best = torch.linalg.svdvals(original.detach())[4:].square().sum()  # without the four largest
    assert best * (1 - 1e-5) <= left <= best * 1.02
    assert not torch.equal(layer.base_layer.weight, original)


def test_a_pissa_checkpoint_of_another_machine_moves_the_base_to_what_its_own_factors_left(tmp_path):
    """Its singular vectors may differ from ours; here, by another seed of the randomised decomposition."""
    made = stage("pissa")
    run_loop(made, ragged_samples([12, 20, 7]), batch_size=3, max_steps=3)
    made.save_pretrained(tmp_path)
    other = stage("pissa", seed=2)
    first = next(name for name in other.initial_factors if "lora_A" in name)
    assert not torch.equal(made.initial_factors[first], other.initial_factors[first])
    other.load_pretrained(tmp_path, {})
    torch.testing.assert_close(logits_of(other.llm), logits_of(made.llm), rtol=1e-5, atol=1e-5)
    assert all(torch.equal(made.initial_factors[n], other.initial_factors[n]) for n in made.initial_factors)
    for (name, p), q in zip(made.trainable_parameters().items(), other.trainable_parameters().values(), strict=True):
        assert torch.equal(p, q), name


def test_a_pissa_with_patterns_and_rslora_keeps_its_scales(tmp_path):
    lora = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["up_proj", "q_proj"],
        task_type="CAUSAL_LM",
        init_lora_weights="pissa",
        use_rslora=True,
        rank_pattern={"q_proj": 2},
        alpha_pattern={"q_proj": 6},
    )
    made = SupervisedFinetune(base(), lora, False, "fp32").train()
    run_loop(made, ragged_samples([12, 20, 7]), batch_size=3, max_steps=3)
    made.save_pretrained(tmp_path)
    plain = PeftModel.from_pretrained(base(), tmp_path)
    torch.testing.assert_close(logits_of(plain), logits_of(made.llm), rtol=1e-5, atol=1e-5)


def test_only_pissa_like_starts_are_converted():
    for init, changed in (
        (True, False),
        ("gaussian", False),
        ("pissa", True),
        ("pissa_niter_4", True),
        ("olora", True),
    ):
        assert pissa.changes_base(LoraConfig(init_lora_weights=init)) is changed
    assert pissa.changes_base(None) is False


@pytest.mark.parametrize(
    "settings, wanted",
    [
        (
            {"lora_variant": "pisa"},
            "model.lora_variant: 'pisa' is none of 'rslora', 'dora', 'pissa'. Did you mean",
        ),
        ({"lora_variant": "pissa", "method": "qlora"}, "which qlora keeps quantised"),
        ({"lora_variant": "dora", "method": "full"}, "'full' has no adapter"),
        ({"lora_r": 0}, "model.lora.r: wanted 1 or more, got 0"),
        ({"method": "lora", "model.lora": "None"}, "method 'lora' needs lora"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(model, data, settings, wanted):
    (fault,) = check(small_config(model, data, **settings).values)
    assert wanted in fault


# ---------------------------------------------------------------- NEFTune


def noise_of(made, micro):
    """(T, d): what NEFTune adds to the embeddings of a packed row."""
    seen = []
    handle = made.llm.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        made(micro)
    handle.remove()
    clean = made.llm.get_input_embeddings().weight[micro.input_ids[0]]
    return (seen[0].reshape(-1, clean.shape[-1])[: len(clean)] - clean).detach()


def test_neftune_noise_is_uniform_and_bounded_by_each_samples_own_length():
    """Fault: L of the whole packed row, which makes the noise depend on what a sample is packed with."""
    lengths, alpha, num_dims = [5, 80, 20], 5.0, 64
    made = stage(noise=alpha)
    noise = noise_of(made, flatten(ragged_samples(lengths)))
    for part, length in zip(noise.split(lengths), lengths, strict=True):
        bound = alpha / math.sqrt(length * num_dims)
        assert 0.9 * bound < float(part.abs().max()) <= bound * (1 + 1e-6)
        assert float(part.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)  # of a uniform distribution
    made.eval()
    assert not noise_of(made, flatten(ragged_samples(lengths))).any()
    assert not noise_of(stage().train(), flatten(ragged_samples(lengths))).any()


def test_neftune_on_padded_rows_has_the_same_bounds():
    lengths = [5, 80, 20]
    made = stage(noise=5.0)
    made.packed_rows = False
    made.llm.set_attn_implementation("eager")
    seen = []
    made.llm.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output))
    micro = flatten(ragged_samples(lengths))
    with torch.no_grad():
        made(micro)
    clean = made.llm.get_input_embeddings().weight[micro.input_ids[0]].split(lengths)
    for row, part, length in zip(seen[0], clean, lengths, strict=True):
        bound = 5.0 / math.sqrt(length * 64)
        assert 0.9 * bound < float((row[:length] - part).abs().max()) <= bound * (1 + 1e-5)


@pytest.mark.slow
def test_a_run_with_neftune_resumes_bit_for_bit_and_validates_without_noise(tmp_path, model, data):
    settings = {"neftune_noise_alpha": 5, "val_ratio": 0.2, "save_steps": 2, "use_activation_checkpointing": True}
    whole = small_run(tmp_path / "whole", model, data, **settings)
    quiet = small_run(tmp_path / "quiet", model, data, **{**settings, "neftune_noise_alpha": None})
    assert scalars(whole)[0] != scalars(quiet)[0]
    shutil.copytree(tmp_path / "whole" / "iter_2.pth", tmp_path / "part" / "iter_2.pth")
    resumed = small_run(tmp_path / "part", model, data, resume="auto", **settings)
    assert scalars(resumed) == scalars(whole)[2:]
    config = small_config(model, data, **settings, lr=1e-30)
    runner = build_runner(config, prepare_inputs(config), tmp_path / "still")
    runner.train()
    untrained = small_run(tmp_path / "untrained", model, data, val_ratio=0.2, lr=1e-30)
    assert scalars(runner, "val_loss") == pytest.approx(scalars(untrained, "val_loss"), rel=1e-6)


def test_the_plain_adapter_of_the_base_config_is_unchanged_by_all_this():
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    llm = base()
    torch.manual_seed(1)
    wanted = get_peft_model(llm, lora).state_dict()
    got = stage().llm.state_dict()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
