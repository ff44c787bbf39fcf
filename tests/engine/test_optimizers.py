"""Optimizers by name: their groups, that they train, and that they come back from a checkpoint bit for bit."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from helpers import scalars, small_config, small_run, tiny_llama_folder, write_questions
from safetensors.torch import load_file, save_file

from medtune.build import check
from medtune.engine import checkpoint
from medtune.engine.muon import MuonWithAdamW
from medtune.engine.optim import StepOptimWrapper
from medtune.engine.optimizers import OPTIMIZERS, make_optimizer, parameter_groups
from medtune.engine.train import train
from medtune.errors import ConfigError, EnvironmentFault, UsageError

NAMES = ["q.lora_A.weight", "q.lora_B.weight", "k.lora_A.weight", "k.lora_B.weight", "norm.weight", "q.bias"]
ON_CPU = ["adamw", "adamw_8bit", "adafactor", "muon", "sgd"]


def named(seed=0):
    """Parameters large enough (4096 elements) for bitsandbytes to quantise the state of the matrices."""
    torch.manual_seed(seed)
    return [(n, torch.nn.Parameter(torch.randn(64, 64) if "lora" in n else torch.randn(64))) for n in NAMES]


def groups_of(**settings):
    """Name -> (rate, decay)."""
    groups = parameter_groups(named(), 1e-3, 0.1, **settings)
    return {name: (g["lr"], g["weight_decay"]) for g in groups for name, _ in g["params"]}


def take_steps(optimizer, params, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        for _, p in params:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()
        optimizer.zero_grad()


# ---------------------------------------------------------------- groups


def test_without_settings_all_parameters_are_one_group_in_the_models_order():
    (group,) = parameter_groups(named(), 1e-3, 0.1)
    assert [name for name, _ in group["params"]] == NAMES
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0.1)


def test_lora_plus_gives_every_lora_b_a_multiple_of_the_rate():
    found = groups_of(lora_plus_ratio=16)
    assert found["q.lora_B.weight"] == found["k.lora_B.weight"] == (pytest.approx(16e-3), 0.1)
    assert {found[name] for name in NAMES if "lora_B" not in name} == {(1e-3, 0.1)}


def test_paramwise_settings_apply_by_kind_and_the_longest_fitting_key_wins_over_the_kind():
    keys = {"lora_A": {"lr_mult": 0.5}, "k.lora_A": {"lr_mult": 2, "decay_mult": 0}, "q.b": {"decay_mult": 3}}
    found = groups_of(paramwise_cfg={"custom_keys": keys, "bias_decay_mult": 0, "norm_decay_mult": 0.5})
    assert found["q.lora_A.weight"] == (5e-4, 0.1)
    assert found["k.lora_A.weight"] == (2e-3, 0.0)
    assert found["norm.weight"] == (1e-3, 0.05)
    assert found["q.bias"] == (1e-3, pytest.approx(0.3))
    assert groups_of(paramwise_cfg={"bias_lr_mult": 2, "bias_decay_mult": 0})["q.bias"] == (2e-3, 0.0)


@pytest.mark.parametrize(
    "settings, wanted",
    [
        ({"custom_keys": {"lora_C": {}}}, "'lora_C' is part of no trained parameter's name"),
        ({"bias_lr_mul": 2}, "paramwise_cfg has no 'bias_lr_mul'. Did you mean 'bias_lr_mult'"),
    ],
)
def test_settings_that_fit_nothing_are_refused(settings, wanted):
    with pytest.raises(ConfigError, match=wanted):
        groups_of(paramwise_cfg=settings)


@pytest.mark.parametrize("name", ON_CPU)
def test_each_group_steps_with_its_own_rate_and_schedule_factor(name):
    """A rate of 0 leaves a group alone, whatever the optimizer."""
    params = named()
    before = [p.detach().clone() for _, p in params]
    keys = {"lora_A": {"lr_mult": 0.0}, "lora_B": {"lr_mult": 1.0}}
    optimizer = make_optimizer(params, name, lr=1e-2, paramwise_cfg={"custom_keys": keys})
    take_steps(optimizer, params, 2)
    moved = {n: not torch.equal(p, b) for (n, p), b in zip(params, before, strict=True)}
    assert moved == {n: "lora_A" not in n for n in NAMES}


# ---------------------------------------------------------------- what they compute


def test_adamw_equals_torchs():
    mine, theirs = named(), named()
    take_steps(make_optimizer(mine, "adamw", lr=1e-2, betas=(0.8, 0.9), weight_decay=0.1), mine, 5)
    take_steps(torch.optim.AdamW([p for _, p in theirs], 1e-2, (0.8, 0.9), weight_decay=0.1), theirs, 5)
    for (_, p), (_, q) in zip(mine, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


def test_muon_takes_the_matrices_and_adamw_the_rest():
    params = [*named(), ("embed_tokens.weight", torch.nn.Parameter(torch.randn(64, 64)))]
    start = {n: p.detach().clone() for n, p in params}
    optimizer = make_optimizer(params, "muon", lr=1e-2)
    assert isinstance(optimizer, MuonWithAdamW)
    take_steps(optimizer, params, 3)
    by_adam = [(n, torch.nn.Parameter(start[n].clone())) for n, _ in params]
    take_steps(torch.optim.AdamW([p for _, p in by_adam], lr=1e-2, weight_decay=0), by_adam, 3)
    for (name, p), (_, q) in zip(params, by_adam, strict=True):
        assert torch.allclose(p, q, rtol=1e-6) == ("lora" not in name), name


def test_a_torch_class_works_as_xtuner_users_write_it():
    (_, first), *_ = params = named()
    assert type(make_optimizer(params, torch.optim.AdamW, betas=(0.5, 0.6))) is torch.optim.AdamW
    assert type(make_optimizer(params, torch.optim.RMSprop, momentum=0.9)) is torch.optim.RMSprop
    wrapper = StepOptimWrapper(torch.optim.AdamW(params, lr=1e-3), {"max_norm": 1}, "fp32")
    first.grad = torch.ones_like(first)
    assert float(wrapper.clip()) == pytest.approx(64)


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "settings, wanted",
    [
        ({"optim_type": "adam_w"}, "optim_type 'adam_w' is none of adamw, .* Did you mean 'adamw'"),
        ({"optim_type": "AdamW"}, "Did you mean 'adamw'"),
        ({"optim_type": "sgd", "epsilon": 1e-6}, "'sgd' refuses its arguments: .*epsilon"),
        ({"lr": -1.0}, "refuses its arguments: Invalid learning rate"),
        ({"betas": (0.9, 1.5)}, "refuses its arguments: Invalid beta"),
        ({"paramwise_cfg": {"custom_keys": {"lora_B": {}}, "bias_lr": 1}}, "paramwise_cfg has no 'bias_lr'"),
    ],
    ids=str,
)
def test_a_faulty_optimizer_is_found_by_the_check_of_the_config(settings, wanted):
    (fault,) = check({"optimizer": dict(type=make_optimizer, **settings)})
    assert fault.startswith("optimizer: ")
    with pytest.raises(ConfigError, match=wanted):
        raise ConfigError(fault)


def test_paged_optimizers_say_that_they_need_a_gpu():
    for name in ("paged_adamw_8bit", "paged_adamw_32bit"):
        with pytest.raises(EnvironmentFault, match="Use optim_type='adamw'"):
            make_optimizer(named(), name)
    assert set(OPTIMIZERS) == {*ON_CPU, "paged_adamw_8bit", "paged_adamw_32bit"}


# ---------------------------------------------------------------- saved and restored


@pytest.mark.parametrize("name", ON_CPU)
def test_a_restored_optimizer_steps_on_with_the_same_bits(tmp_path, name):
    settings = {"lr": 1e-2, "lora_plus_ratio": 4}
    params = named()
    optimizer = make_optimizer(params, name, **settings)
    take_steps(optimizer, params, 3)
    tensors, plain = checkpoint.optimizer_tensors(optimizer, {id(p): n for n, p in params})
    save_file(tensors, tmp_path / "o.safetensors")
    assert name != "adamw_8bit" or tensors["state1.q.lora_A.weight"].dtype == torch.uint8
    copies = [(n, torch.nn.Parameter(p.detach().clone())) for n, p in params]
    restored = make_optimizer(copies, name, **settings)
    checkpoint.load_optimizer(restored, load_file(tmp_path / "o.safetensors"), json.loads(json.dumps(plain)))
    take_steps(optimizer, params, 3, seed=2)
    take_steps(restored, copies, 3, seed=2)
    assert all(torch.equal(p, q) for (_, p), (_, q) in zip(params, copies, strict=True))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_CPU)
def test_a_run_cut_in_two_equals_the_run_in_one_piece(tmp_path, model, data, name):
    settings = {"method": "full", "optim_type": name, "lr": 1e-3, "save_steps": 2, "paramwise_cfg": DECAYS}
    whole = small_run(tmp_path / "whole", model, data, **settings)
    losses = scalars(whole)
    assert losses[-1] < losses[0]
    shutil.copytree(tmp_path / "whole" / "iter_2.pth", tmp_path / "part" / "iter_2.pth")
    resumed = small_run(tmp_path / "part", model, data, resume="auto", **settings)
    assert scalars(resumed) == losses[2:]
    for file in ("model", "optimizer", "rank_00000"):
        halves = [(tmp_path / run / "iter_4.pth" / f"{file}.safetensors").read_bytes() for run in ("whole", "part")]
        assert halves[0] == halves[1], file
    with pytest.raises(UsageError, match=r"lr 0\.001 -> 0\.002; lora_plus_ratio None -> 2\."):
        small_run(tmp_path / "part", model, data, resume="auto", **{**settings, "lora_plus_ratio": 2, "lr": 2e-3})


DECAYS = {"custom_keys": {"embed_tokens": {"lr_mult": 0.5}}, "norm_decay_mult": 0.0}


@pytest.mark.slow
def test_a_flat_config_may_name_a_torch_class_for_its_optimizer(tmp_path, model, data):
    wanted = small_run(tmp_path / "named", model, data)
    config = small_config(model, data)
    config.values["optim_wrapper"]["optimizer"] = {"type": torch.optim.AdamW, "lr": 1e-2, "weight_decay": 0}
    runner = train(config, tmp_path / "flat")
    assert type(runner.optim_wrapper.optimizer) is torch.optim.AdamW
    assert scalars(runner) == pytest.approx(scalars(wanted), rel=1e-6)


@pytest.mark.slow
def test_lora_plus_reaches_the_run(tmp_path, model, data):
    runner = small_run(tmp_path, model, data, lora_plus_ratio=16, max_steps=1, warmup_ratio=0.0, lr_schedule="constant")
    groups = runner.optim_wrapper.optimizer.param_groups
    rates = {name: g["lr"] for g in groups for name in g["param_names"]}
    assert {rates[name] for name in rates if "lora_A" in name} == {1e-2}
    assert [rates[name] for name in rates if "lora_B" in name] == pytest.approx([16e-2] * 14)
    assert scalars(runner, "lr") == [1e-2]
