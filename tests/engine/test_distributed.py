"""Data parallel over gloo: two and three real processes against one, and what becomes of the fault of a rank."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import (
    flat,
    ragged_samples,
    ranks,
    relative,
    run_loop,
    scalars,
    small_run,
    tiny_llama,
    tiny_llama_folder,
    write_questions,
)
from safetensors.torch import load
from torch import nn
from torch.utils.data import DataLoader

from medtune.data.collate import collate_step
from medtune.data.sampler import StepSampler
from medtune.engine import distributed
from medtune.engine.validation import evaluate
from medtune.errors import DataError, EnvironmentFault, PeerFault, UsageError
from medtune.models import attention
from medtune.models.sft import SupervisedFinetune

pytestmark = pytest.mark.slow  # each reads or trains in processes of its own


def stage():
    llm = tiny_llama()
    llm.set_attn_implementation(attention.NAME)
    return SupervisedFinetune(llm, None, False, "fp32").train()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl")


# ---------------------------------------------------------------- gradients


def ragged_step(seed):
    """A step of 1 to 7 samples of 2 to 39 tokens; one sample alone leaves the second rank nothing to do."""
    rng = np.random.default_rng(seed)
    return ragged_samples(rng.integers(2, 40, 1 + seed % 7).tolist(), seed)


def gradients(seeds, in_one_pass, dtype="fp32"):
    """Gradient and loss of each step, without moving the weights."""
    model = stage()
    found = []
    for seed in seeds:
        samples = ragged_step(seed)
        shape = {"batch_size": len(samples)} if in_one_pass else {"batch_size": 2, "accumulative_counts": 2}
        optimizer = torch.optim.SGD(list(model.trainable_parameters().values()), lr=0.0)
        run = run_loop(model, samples, optimizer=optimizer, dtype=dtype, **shape)
        counts = (run.results[0].num_units, run.results[0].num_tokens, run.results[0].num_samples)
        found.append((flat(run.gradients[0]).numpy(), float(run.results[0].loss_sum), counts))
    return found


@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 45), marks=pytest.mark.slow)], ids=["5", "40"])
def test_two_ranks_with_unequal_tokens_get_the_gradient_of_one_process(seeds):
    """T3: fails when the ranks' means are averaged, or summed without the units of the other ranks."""
    wanted = gradients(seeds, True)
    first, second = ranks(2, gradients, seeds, False)
    for mine, theirs, (gradient, loss, counts) in zip(first, second, wanted, strict=True):
        assert relative(torch.from_numpy(mine[0]), torch.from_numpy(gradient)) <= 1e-6
        assert np.array_equal(mine[0], theirs[0])
        assert mine[1] == theirs[1] == pytest.approx(loss, rel=1e-6)
        assert mine[2] == theirs[2] == counts


def test_a_rank_without_a_sample_takes_part_under_a_loss_scale_too():
    seeds = [0, 7]  # one sample each
    wanted = gradients(seeds, True, "fp16")
    for found in ranks(2, gradients, seeds, False, "fp16"):
        for mine, (gradient, _, _) in zip(found, wanted, strict=True):
            assert relative(torch.from_numpy(mine[0]), torch.from_numpy(gradient)) <= 1e-6


def partial_gradients():
    distributed.BUCKET = 5  # so that there are several, one of them too large for it
    parameters = [nn.Parameter(torch.zeros(n, dtype=t)) for n, t in [(2, torch.float32), (7, torch.float32)] * 2]
    parameters += [nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16)), nn.Parameter(torch.zeros(3))]
    for i, p in enumerate(parameters[:-1]):
        if i % 2 or distributed.is_main():  # of the even ones only rank 0 has a gradient; of the last nobody
            p.grad = torch.full_like(p, i + 1.0)
    distributed.reduce_gradients(parameters)
    return [None if p.grad is None else p.grad.float().numpy() for p in parameters]


def test_a_parameter_without_gradient_counts_as_zero_and_without_any_keeps_none():
    for found in ranks(2, partial_gradients):
        assert found[-1] is None
        assert [g.flatten().tolist() for g in found[:-1]] == [[1] * 2, [4] * 7, [3] * 2, [8] * 7, [5] * 4]


# ---------------------------------------------------------------- whole runs


def train_here(work_dir, model, data, resume, settings):
    runner = small_run(work_dir, model, data, resume, **settings)
    return runner.loop.progress.as_dict()


def train_in_ranks(count, work_dir, model, data, resume=None, **settings):
    return ranks(count, train_here, work_dir, model, data, resume, settings)


def weights(folder):
    return {file.name: file.read_bytes() for file in sorted(Path(folder).glob("*.safetensors"))}


@pytest.mark.slow
def test_twenty_steps_of_two_ranks_lose_what_one_process_loses(tmp_path, model, data):
    settings = {"lora_dropout": 0.0, "max_steps": 20, "val_ratio": 0.2, "eval_steps": 10}
    alone = small_run(tmp_path / "one", model, data, **settings, accumulative_counts=4)
    told = train_in_ranks(2, tmp_path / "two", model, data, **settings, accumulative_counts=2)
    for name in ("loss", "val_loss"):
        assert scalars(tmp_path / "two", name) == pytest.approx(scalars(alone, name), rel=1e-6)
    assert scalars(tmp_path / "two", "val_accuracy") == scalars(alone, "val_accuracy")
    assert told == [alone.loop.progress.as_dict()] * 2


@pytest.mark.parametrize(
    "settings",
    [
        {"lora_dropout": 0.2},
        pytest.param({"lora_dropout": 0.2, "accumulative_counts": 1}, marks=pytest.mark.slow),
        pytest.param({"accumulative_counts": 4, "dataloader_num_workers": 2}, marks=pytest.mark.slow),
        pytest.param({"method": "full", "torch_dtype": "bf16", "pack_to_max_length": False}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_two_ranks_resume_bit_for_bit_and_one_process_is_refused_their_checkpoint(tmp_path, model, data, settings):
    settings = {**settings, "save_steps": 2}
    train_in_ranks(2, tmp_path / "whole", model, data, **settings)
    shutil.copytree(tmp_path / "whole" / "iter_2.pth", tmp_path / "halves" / "iter_2.pth")
    train_in_ranks(2, tmp_path / "halves", model, data, "auto", **settings)
    wanted = weights(tmp_path / "whole" / "iter_4.pth")
    assert weights(tmp_path / "halves" / "iter_4.pth") == wanted
    assert scalars(tmp_path / "halves") == scalars(tmp_path / "whole")[2:]
    first, second = (load(wanted[f"rank_0000{rank}.safetensors"])["numpy"] for rank in range(2))
    assert not torch.equal(first, second)  # dropout is each rank's own; nothing draws from NumPy, so this is its seed
    with pytest.raises(UsageError, match=r"this one: .*ranks 2 -> 1"):  # though a step is of as many packs
        count = 2 * settings.get("accumulative_counts", 2)
        small_run(tmp_path / "halves", model, data, "auto", **{**settings, "accumulative_counts": count})


# ---------------------------------------------------------------- validation


def validate():
    packs = [[i] for i in range(7)]
    sampler = StepSampler(packs, 2, shuffle=False, rank=distributed.rank(), world_size=distributed.world_size())
    samples = ragged_samples([9, 14, 5, 30, 8, 3, 17])
    batches = [collate_step([[samples[i] for i in micro] for micro in step]) for step in sampler]
    return tuple(evaluate(stage(), DataLoader(batches, batch_size=None)))


@pytest.mark.parametrize("count", [2, 3])
def test_validation_over_ranks_counts_every_token_once(count):
    """T23, T26: fails when the last batch is filled up with repeated samples, or the ranks' means are averaged."""
    nats, *counts = validate()
    for found in ranks(count, validate):
        assert found[0] == pytest.approx(nats, rel=1e-6)
        assert list(found[1:]) == counts


# ---------------------------------------------------------------- faults


def poisoned():
    model = stage()
    if not distributed.is_main():
        with torch.no_grad():
            model.llm.model.norm.weight[0] = float("nan")
    try:
        run_loop(model, ragged_samples([5, 6, 7, 8]), batch_size=2)
    except EnvironmentFault as fault:
        return str(fault), fault.exit_code
    return None


def test_a_loss_that_is_no_number_on_one_rank_stops_all_and_names_that_ranks_rows():
    for message, code in ranks(2, poisoned):
        assert code == 3 and "at step 1" in message
        assert "Rows: data.jsonl:2, data.jsonl:4." in message


def broken_row():
    try:
        with distributed.together():
            if not distributed.is_main():
                raise DataError("train.jsonl:7: the answer is empty.")
    except UsageError as own:
        return "own", str(own), own.exit_code
    except PeerFault as echo:
        return "echo", str(echo), echo.exit_code
    return None


def test_a_fault_of_one_rank_is_that_of_all_with_its_message_and_code():
    assert ranks(2, broken_row) == [
        ("echo", "rank 1: train.jsonl:7: the answer is empty.", 2),
        ("own", "train.jsonl:7: the answer is empty.", 2),
    ]


def other_weights():
    model = nn.Linear(3, 2)
    nn.init.constant_(model.weight, 1.0), nn.init.constant_(model.bias, 0.5)
    distributed.check_same_weights(model)
    if not distributed.is_main():
        with torch.no_grad():
            model.bias[1] += 1e-3
    try:
        distributed.check_same_weights(model)
    except EnvironmentFault as fault:
        return str(fault)
    return None


def test_ranks_that_start_from_other_weights_are_stopped():
    for message in ranks(2, other_weights):
        assert message.startswith("rank 1 starts from other weights than rank 0")


def test_texts_of_any_length_are_gathered_by_rank():
    assert ranks(3, said) == [["", "头痛", "xx"]] * 3


def said():
    return distributed.gather_text(["", "头痛", "xx"][distributed.rank()])
