"""Validation: metrics against plain transformers, when it runs, the best checkpoint, early stopping, `medtune test`."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from helpers import (
    padded_batch,
    ragged_samples,
    ranks,
    run_cli,
    scalars,
    small_config,
    small_run,
    tiny_llama,
    tiny_llama_folder,
    words_of,
    write_questions,
)
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from medtune.build import check
from medtune.data.collate import collate_step
from medtune.data.packing import plan_packs
from medtune.data.sampler import StepSampler
from medtune.engine import checkpoint
from medtune.engine.evaluate import evaluate_checkpoint
from medtune.engine.train import build_runner, prepare_inputs, train
from medtune.engine.validation import Sums, ValidationHook, count_characters, evaluate, metrics_of
from medtune.errors import ConfigError, EnvironmentFault, ModelError, UsageError
from medtune.models import attention
from medtune.models.sft import SupervisedFinetune


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl")


@pytest.fixture(scope="module")
def val_data(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("data") / "held_out.jsonl", count=7, seed=5)


@pytest.fixture(scope="module")
def best_run(tmp_path_factory, model, data):
    """6 steps at a rate so high that the loss is best before the end; a checkpoint at each step."""
    folder = tmp_path_factory.mktemp("runs") / "best"
    runner = small_run(folder, model, data, **BEST)
    return folder, scalars(runner, "val_loss")


BEST = {"val_ratio": 0.3, "save_best": "val_loss", "save_steps": 1, "eval_steps": 1, "max_steps": 6}
BEST |= {"lr": 0.1, "lr_schedule": "constant"}


def adapter(run, name=None):
    name = name or (Path(run) / "last_checkpoint").read_text().strip()
    return (Path(run) / name / "adapter_model.safetensors").read_bytes()


def results(run, name="eval_results.json"):
    return json.loads((Path(run) / name).read_text())


def saved_names(run):
    return sorted(f.name for f in Path(run).glob("*.pth"))


# ---------------------------------------------------------------- metrics


def loader(samples, packs, batch_size):
    lists = [[samples[i] for i in pack] for pack in packs]
    sampler = StepSampler([[i] for i in range(len(lists))], batch_size, shuffle=False)
    return [collate_step([[s for pack in micro for s in lists[pack]] for micro in step]) for step in sampler]


def test_the_sums_do_not_depend_on_batches_or_packs_and_equal_plain_transformers():
    """T26: fails when the means of batches are averaged, whatever their number of trained tokens."""
    samples = ragged_samples([12, 3, 31, 7, 20, 9, 2])
    llm = tiny_llama()
    with torch.no_grad():
        batch = padded_batch(samples)
        output = llm.eval()(**batch)
    wanted_loss, targets = output.loss.item(), batch["labels"][:, 1:]
    wanted_correct = (output.logits[:, :-1].argmax(-1) == targets)[targets != -100].sum().item()
    llm.set_attn_implementation(attention.NAME)
    stage = SupervisedFinetune(llm, None, False, "fp32").train()
    alone = [[i] for i in range(len(samples))]
    packed = plan_packs([len(s["input_ids"]) for s in samples], 40, seed=0)
    for packs, size in ((alone, 1), (alone, 3), (alone, 100), (packed, 1), (packed, 2)):
        sums = evaluate(stage, loader(samples, packs, size))
        assert sums.loss / sums.num_units == pytest.approx(wanted_loss, rel=1e-6)
        assert (sums.logs["correct"], sums.num_units) == (wanted_correct, int((targets != -100).sum()))
    assert stage.training


def test_bits_per_character_counts_the_answers_text_without_control_tokens(tmp_path, model, val_data):
    config = small_config(model, val_data)
    inputs = prepare_inputs(config)
    answers = [json.loads(line)["answer"] for line in val_data.read_text().splitlines()]
    wanted = sum(map(len, answers))
    assert count_characters(inputs.train_dataset.samples, inputs.tokenizer) == wanted
    metrics = metrics_of(SupervisedFinetune(tiny_llama(), None, False), Sums(100.0, 20, {"correct": 5.0}), wanted)
    assert metrics["val_bits_per_character"] == pytest.approx(100 / math.log(2) / wanted)
    assert (metrics["val_loss"], metrics["val_accuracy"], metrics["val_tokens"]) == (5.0, 0.25, 20)
    assert metrics["val_perplexity"] == pytest.approx(math.exp(5))


# ---------------------------------------------------------------- which data, and when


@pytest.mark.slow
def test_a_validation_file_of_its_own_is_used_whole_and_leaves_the_training_data_alone(tmp_path, model, data, val_data):
    plain = small_run(tmp_path / "plain", model, data)
    runner = small_run(tmp_path / "run", model, data, val_data_path=str(val_data), eval_batch_size=3)
    assert len(runner.inputs.val_data.dataset.samples) == 7
    assert [len(b.micro_batches[0].origins) for b in runner.inputs.val_data] == [3, 3, 1]
    assert all("held_out.jsonl" in origin for origin in runner.inputs.val_data.dataset.samples.origins)
    assert scalars(runner) == scalars(plain)
    assert adapter(tmp_path / "run") == adapter(tmp_path / "plain")
    few = prepare_inputs(small_config(model, data, val_data_path=str(val_data), max_eval_samples=2))
    assert len(few.val_data.dataset.samples) == 2


def test_validation_data_from_two_places_is_refused(model, data, val_data):
    (fault,) = check(small_config(model, data, val_data_path=str(val_data), val_ratio=0.1).values)
    assert fault.startswith("val_dataset: val_ratio and val_data_path both name validation data")


@pytest.mark.parametrize(
    "settings, steps",
    [
        ({"max_steps": 3, "eval_steps": 2}, [2, 3]),
        pytest.param({"max_steps": 4, "eval_steps": 2}, [2, 4], marks=pytest.mark.slow),
        pytest.param({"max_steps": None, "max_epochs": 1.5}, [5, 8], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_it_runs_at_the_interval_or_after_each_epoch_and_always_after_the_last_step(
    tmp_path, model, data, settings, steps
):
    runner = small_run(tmp_path, model, data, val_ratio=0.2, **settings)
    lines = [json.loads(line) for line in (runner.vis_dir / "scalars.json").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_loss" in line] == steps
    found = results(tmp_path)
    assert found["step"] == steps[-1]
    assert found["val_loss"] == scalars(runner, "val_loss")[-1]
    assert found["best_val_loss"] == min(scalars(runner, "val_loss"))


def test_the_results_of_the_training_count_all_of_it(tmp_path, model, data):
    runner = small_run(tmp_path, model, data, max_steps=6)
    found, report = results(tmp_path, "train_results.json"), runner.inputs.train_dataset.report.encoded
    assert (found["steps"], found["epochs"], found["skipped_steps"]) == (6, 1.0, 0)
    assert (found["tokens"], found["trained_tokens"]) == (report.num_tokens, report.num_trained_tokens)
    assert found["samples"] == report.num_samples
    samples, sampler = runner.inputs.train_dataset.samples, runner.loop.sampler
    sampler.seek(0)
    units = [sum(int(samples.num_trained[i]) for micro in step for i in micro) for step in sampler]
    wanted = sum(loss * n for loss, n in zip(scalars(runner), units, strict=True)) / sum(units)
    assert found["loss"] == pytest.approx(wanted, rel=1e-6)
    assert found["tokens_per_sec"] == pytest.approx(found["tokens"] / found["seconds"], rel=0.02)
    assert not (tmp_path / "eval_results.json").exists()


# ---------------------------------------------------------------- the rehearsal


@pytest.mark.slow
def test_the_rehearsal_changes_no_bit_of_the_training(tmp_path, model, data, monkeypatch):
    settings = {"lora_dropout": 0.2, "neftune_noise_alpha": 5, "val_ratio": 0.3}
    small_run(tmp_path / "with", model, data, **settings)
    monkeypatch.setattr("medtune.engine.runner.MedtuneRunner.rehearse_save", lambda self: None)
    monkeypatch.setattr("medtune.engine.validation.REHEARSED_BATCHES", 0)
    small_run(tmp_path / "without", model, data, **settings)
    both = [json.loads((tmp_path / run / "iter_4.pth" / "state.json").read_text()) for run in ("with", "without")]
    for state in both:
        for sums in state["hooks"]["LoggerHook"].values():  # wall time is another one each time
            del sums["seconds"], sums["data_seconds"]
    assert both[0] == both[1]
    for name in ("adapter_model", "optimizer", "rank_00000"):
        pair = [(tmp_path / run / "iter_4.pth" / f"{name}.safetensors").read_bytes() for run in ("with", "without")]
        assert pair[0] == pair[1]


@pytest.mark.parametrize("broken", ["evaluation", "disk"])
def test_a_broken_evaluation_or_disk_is_found_before_the_first_step(tmp_path, model, data, monkeypatch, broken):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    names = {"evaluation": "medtune.engine.validation.evaluate", "disk": "medtune.engine.checkpoint.write_folder"}
    monkeypatch.setattr(names[broken], fail)
    config = small_config(model, data, val_ratio=0.3)
    runner = build_runner(config, prepare_inputs(config), tmp_path)
    with pytest.raises((OSError, EnvironmentFault), match="No space left"):
        runner.train()
    assert runner.loop.iter == 0
    assert saved_names(tmp_path) == []


@pytest.mark.slow
def test_the_rehearsal_leaves_nothing_behind(tmp_path, model, data):
    small_run(tmp_path, model, data, val_ratio=0.3, max_steps=1)
    kept = {"iter_1.pth", "last_checkpoint", "sft.py", "eval_results.json", "train_results.json", ".lock"}
    assert {f.name for f in tmp_path.iterdir() if not f.name.startswith("20")} == kept


# ---------------------------------------------------------------- the best one, and stopping early


@pytest.mark.slow
def test_the_best_checkpoint_is_named_and_survives_the_limit(tmp_path, model, data, best_run):
    folder, losses = best_run
    best = losses.index(min(losses)) + 1
    assert 1 < best < 6  # not the last: else the limit would keep it anyway
    assert (folder / "best_checkpoint").read_text() == f"iter_{best}.pth\n"
    assert saved_names(folder) == [f"iter_{n}.pth" for n in range(1, 7)]
    assert (results(folder)["best_step"], results(folder)["best_val_loss"]) == (best, min(losses))
    small_run(tmp_path, model, data, **BEST, save_total_limit=1)
    assert saved_names(tmp_path) == sorted({f"iter_{best}.pth", "iter_6.pth"})
    assert adapter(tmp_path, f"iter_{best}.pth") == adapter(folder, f"iter_{best}.pth")


@pytest.mark.slow
def test_a_step_between_two_saves_is_saved_if_it_is_the_best(tmp_path, model, data, best_run):
    _, losses = best_run
    best = losses.index(min(losses)) + 1
    small_run(tmp_path, model, data, **{**BEST, "save_steps": 100})
    improving = [n for n in range(1, 7) if losses[n - 1] == min(losses[:n])]
    assert saved_names(tmp_path) == sorted({*(f"iter_{n}.pth" for n in improving), "iter_6.pth"})
    assert (tmp_path / "best_checkpoint").read_text() == f"iter_{best}.pth\n"


@pytest.mark.slow
def test_per_epoch_the_best_has_the_epochs_name_and_the_highest_accuracy_counts(tmp_path, model, data):
    settings = {"max_steps": None, "max_epochs": 2, "val_ratio": 0.2, "save_best": "val_accuracy"}
    runner = small_run(tmp_path, model, data, **settings)
    accuracies = scalars(runner, "val_accuracy")
    best = accuracies.index(max(accuracies)) + 1  # of equal ones the first
    assert saved_names(tmp_path) == ["epoch_1.pth", "epoch_2.pth"]
    assert (tmp_path / "best_checkpoint").read_text() == f"epoch_{best}.pth\n"


@pytest.mark.slow
def test_early_stopping_ends_after_as_many_validations_without_a_better_one(tmp_path, model, data, best_run):
    _, losses = best_run
    stop = next(step for step in range(1, 7) if losses[step - 1] > min(losses[:step]))
    assert stop < 6
    settings = {**BEST, "early_stopping_patience": 1, "logging_interval": 3}
    runner = small_run(tmp_path, model, data, **settings)
    assert runner.loop.iter == stop
    assert f"early stopping at step {stop}" in next(tmp_path.glob("*/*.log")).read_text()
    assert saved_names(tmp_path)[-1] == f"iter_{stop}.pth"
    assert results(tmp_path, "train_results.json")["steps"] == stop
    lines = [json.loads(line) for line in (runner.vis_dir / "scalars.json").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line][-1] == stop  # also of an interval that is not full
    again = small_run(tmp_path, model, data, resume="auto", **settings)
    assert again.loop.iter == stop  # a stopped run stays stopped


@pytest.mark.slow
def test_a_resumed_run_knows_the_best_the_patience_and_the_half_full_log_interval(tmp_path, model, data):
    settings = {**BEST, "lr": 1e-2, "logging_interval": 3, "early_stopping_patience": 4}
    whole = small_run(tmp_path / "whole", model, data, **settings)
    part = tmp_path / "part"
    part.mkdir()
    shutil.copytree(tmp_path / "whole" / "iter_2.pth", part / "iter_2.pth")
    resumed = small_run(part, model, data, resume="auto", **settings)
    assert scalars(resumed, "val_loss") == scalars(whole, "val_loss")[2:]
    assert scalars(resumed) == scalars(whole)[1:]  # of steps 1, 1 to 3, 4 to 6: the middle one was cut in two
    states = [json.loads((run / "iter_6.pth" / "state.json").read_text()) for run in (tmp_path / "whole", part)]
    assert states[0]["hooks"]["ValidationHook"] == states[1]["hooks"]["ValidationHook"]
    assert results(part, "train_results.json")["loss"] == results(tmp_path / "whole", "train_results.json")["loss"]


@pytest.mark.slow
def test_a_run_killed_before_the_best_was_named_names_it_when_it_resumes(tmp_path, model, data, best_run):
    folder, losses = best_run
    best = losses.index(min(losses)) + 1
    shutil.copytree(folder / f"iter_{best}.pth", tmp_path / f"iter_{best}.pth")
    small_run(tmp_path, model, data, resume="auto", **{**BEST, "save_total_limit": 1})
    assert (tmp_path / "best_checkpoint").read_text() == f"iter_{best}.pth\n"
    assert saved_names(tmp_path) == sorted({f"iter_{best}.pth", "iter_6.pth"})


def test_what_it_cannot_do_is_refused(tmp_path, model, data):
    (fault,) = check({"hook": {"type": ValidationHook, "save_best": "val_los"}})
    assert "Did you mean 'val_loss'" in fault
    for setting in ({"save_best": "val_loss"}, {"early_stopping_patience": 1}):
        (fault,) = check(small_config(model, data, **setting).values)
        assert "need validation data: val_ratio or val_data_path" in fault
    flat = small_config(model, data)
    flat.values["default_hooks"]["validation"]["save_best"] = "val_loss"
    with pytest.raises(ConfigError, match="need validation data"):
        train(flat, tmp_path)


def validated(folder, model, data):
    settings = {**BEST, "max_steps": 3, "accumulative_counts": 1, "early_stopping_patience": 5}
    runner = small_run(Path(folder), model, data, **settings)
    return scalars(runner, "val_loss"), scalars(runner, "val_accuracy"), runner.metrics["val_tokens"]


@pytest.mark.slow
def test_two_ranks_validate_together_what_one_does_alone(tmp_path, model, data):
    both = ranks(2, validated, str(tmp_path / "two"), model, data)
    assert results(tmp_path / "two")["val_loss"] == both[0][0][-1]
    name = (tmp_path / "two" / "best_checkpoint").read_text().strip()
    assert (tmp_path / "two" / name).is_dir()
    last = tmp_path / "two" / "iter_3.pth"
    config = small_config(model, data, **{**BEST, "max_steps": 3})
    alone = evaluate_checkpoint(config, last)
    assert both[0][0][-1] == pytest.approx(alone["val_loss"], rel=1e-6)
    assert (both[0][1][-1], both[0][2]) == (alone["val_accuracy"], alone["val_tokens"])


# ---------------------------------------------------------------- medtune test


@pytest.mark.parametrize(
    "settings",
    [{}, pytest.param({"method": "full", "torch_dtype": "bf16", "lr": 1e-3}, marks=pytest.mark.slow)],
    ids=["lora", "full bf16"],
)
def test_a_checkpoint_measures_what_its_training_logged(tmp_path, model, data, settings):
    settings = {**settings, "val_ratio": 0.3, "max_steps": 2}
    runner = small_run(tmp_path, model, data, **settings)
    before = sorted(f.name for f in tmp_path.rglob("*"))
    found = evaluate_checkpoint(small_config(model, data, **settings), tmp_path / "iter_2.pth")
    assert found == {name: value for name, value in runner.metrics.items() if name.startswith("val_")}
    assert sorted(f.name for f in tmp_path.rglob("*")) == before


def test_a_checkpoint_measures_what_plain_peft_does_on_another_file(tmp_path, model, data, val_data):
    small_run(tmp_path, model, data, max_steps=2)
    config = small_config(model, data, val_data_path=str(val_data))
    found = evaluate_checkpoint(config, tmp_path / "iter_2.pth")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), tmp_path / "iter_2.pth").eval()
    samples = prepare_inputs(config).val_data.dataset.samples
    with torch.no_grad():
        loss = plain(**padded_batch([samples[i] for i in range(len(samples))])).loss.item()
    assert found["val_loss"] == pytest.approx(loss, rel=1e-6)
    text = AutoTokenizer.from_pretrained(model).decode(samples[0]["labels"][samples[0]["labels"] >= 0])
    assert json.loads(val_data.read_text().splitlines()[0])["answer"] in text


@pytest.mark.slow
def test_what_cannot_be_measured_is_refused(tmp_path, model, data):
    small_run(tmp_path, model, data, max_steps=1)
    with pytest.raises(UsageError, match=r"no validation data: set val_data_path=FILE, or val_ratio=0\.1"):
        evaluate_checkpoint(small_config(model, data), tmp_path / "iter_1.pth")
    with pytest.raises(ModelError, match="checkpoint"):
        evaluate_checkpoint(small_config(model, data, val_ratio=0.3), tmp_path)
    for other in ({"method": "full"}, {"lora_r": 8}):
        with pytest.raises((UsageError, ModelError), match="other weights than this config trains"):
            evaluate_checkpoint(small_config(model, data, val_ratio=0.3, **other), tmp_path / "iter_1.pth")


def test_a_checkpoint_of_another_base_model_is_not_measured(tmp_path, model, data):
    """The shapes fit: without the check it would be measured, and badly."""
    small_run(tmp_path / "run", model, data, max_steps=1)
    other = tiny_llama_folder(tmp_path / "other", seed=5)
    with pytest.raises(UsageError, match=r"another base model .* differ\. Set pretrained_model_name_or_path"):
        evaluate_checkpoint(small_config(other, data, val_ratio=0.3), tmp_path / "run" / "iter_1.pth")
    moved = shutil.copytree(model, tmp_path / "moved")
    assert (
        evaluate_checkpoint(small_config(moved, data, val_ratio=0.3), tmp_path / "run" / "iter_1.pth")["val_loss"] > 0
    )


@pytest.mark.slow
def test_the_command_prints_and_writes_the_metrics(tmp_path, model, data):
    train(small_config(model, data, max_steps=1), tmp_path / "run")
    words = words_of(model, data, val_ratio=0.3)[1:]
    done = run_cli("test", *words, "--checkpoint", "run/iter_1.pth", "--work-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    printed = dict(line.split() for line in done.stdout.splitlines() if line.startswith("val_"))
    found = results(tmp_path / "out")
    assert {name: f"{found[name]:.6g}" for name in printed} == printed
    assert set(printed) == {"val_loss", "val_perplexity", "val_bits_per_character", "val_accuracy", "val_tokens"}
    assert checkpoint.best_of(tmp_path / "run") is None
    refused = run_cli("test", *words_of(model, data)[1:], "--checkpoint", "run/iter_1.pth", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "no validation data" in refused.stderr
