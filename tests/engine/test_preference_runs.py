"""Preference stages from a config to a checkpoint: resumed, measured, by two processes, converted and merged."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers import SMALL_RUN, run_cli, scalars, tiny_llama_folder

from medtune import config
from medtune.engine import hooks
from medtune.engine.evaluate import evaluate_checkpoint
from medtune.engine.train import prepare_inputs, train
from medtune.errors import ConfigError

STAGES = ("dpo", "kto", "orpo", "simpo")
SETTINGS = {**SMALL_RUN, "lr": 1e-2, "val_ratio": 0.25, "max_steps": 6, "eval_steps": 3, "save_steps": 3}
WORDS = "aspirin fever dose pain 布洛芬 每日 kidney 头痛 tablet never with wine".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The data file of each stage: better answers say yes, worse ones no."""
    rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("data")
    told = {"pairs": [], "labels": []}
    for i in range(32):
        prompt, more = (" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(2))
        told["pairs"].append({"prompt": f"Case {i}: {prompt}?", "chosen": f"Yes, {more}.", "rejected": f"No {more}"})
        answer = f"Yes, {more}." if i % 2 else f"No {more}"
        told["labels"].append({"prompt": f"Case {i}: {prompt}?", "completion": answer, "label": bool(i % 2)})
    for name, rows in told.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {stage: folder / ("labels.jsonl" if stage == "kto" else "pairs.jsonl") for stage in STAGES}


def loaded(stage, model, files, **settings):
    """The stage's base config with the settings of a run of a second, without the plot, which takes most of it."""
    settings = {"pretrained_model_name_or_path": model, "data_path": files[stage], **SETTINGS, **settings}
    told = config.load(stage, [(name, str(value)) for name, value in settings.items()])
    told.values["custom_hooks"] = [h for h in told.values["custom_hooks"] if h["type"] is not hooks.LossPlotHook]
    return told


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_is_the_run_that_never_stopped_bit_for_bit(stage, model, files, tmp_path):
    whole = train(loaded(stage, model, files), tmp_path / "whole")
    train(loaded(stage, model, files), tmp_path / "part")
    resumed = train(loaded(stage, model, files), tmp_path / "part", str(tmp_path / "part" / "iter_3.pth"))
    weights = [(tmp_path / run / "iter_6.pth" / "adapter_model.safetensors").read_bytes() for run in ("whole", "part")]
    assert weights[0] == weights[1]
    assert resumed.metrics == whole.metrics
    (told,) = {
        json.loads((tmp_path / run / "iter_6.pth" / "medtune.json").read_text())["stage"] for run in ("whole", "part")
    }
    assert told == stage


@pytest.mark.parametrize("stage", STAGES)
def test_a_checkpoint_is_measured_as_its_validation_was(stage, model, files, tmp_path):
    settings = {"save_best": "val_accuracy", "eval_batch_size": 3}
    runner = train(loaded(stage, model, files, **settings), tmp_path / "run")
    measured = evaluate_checkpoint(loaded(stage, model, files, eval_batch_size=1), tmp_path / "run" / "iter_6.pth")
    assert measured == pytest.approx({k: v for k, v in runner.metrics.items() if k.startswith("val_")}, rel=1e-4)
    assert measured["val_answers" if stage == "kto" else "val_pairs"] == 8
    margins = scalars(runner, "val_margin")
    assert margins[-1] > margins[0] and measured["val_accuracy"] > 0.6
    losses = scalars(runner)
    assert losses[-1] < losses[0]
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert results["val_margin"] == margins[-1] and "best_val_accuracy" in results
    assert (tmp_path / "run" / "best_checkpoint").is_file()


def test_packed_and_unpacked_validation_are_the_same(model, files):
    """Which also holds the reference point of KTO to all of the validation, however it is cut."""
    from medtune.build import build
    from medtune.engine.validation import evaluate

    for stage in STAGES:
        sums = []
        for size in (1, 8):
            told = loaded(stage, model, files, eval_batch_size=size)
            inputs = prepare_inputs(told)
            sums.append(evaluate(build(told.values["model"], inputs.memo), inputs.val_data))
        assert sums[0].num_units == sums[1].num_units == 8
        assert sums[0].loss == pytest.approx(sums[1].loss, rel=1e-5)


def test_data_of_another_kind_than_the_model_learns_from_is_refused(model, files, tmp_path):
    told = loaded("dpo", model, files)
    told.values["train_dataset"]["kind"] = "labels"
    with pytest.raises(ConfigError, match=r"train_dataset.kind: 'labels', and the model trains on 'pairs'"):
        train(told, tmp_path / "run")


@pytest.mark.parametrize("stage", STAGES)
def test_the_expanded_config_holds_the_same_values(stage, tmp_path):
    from config_helpers import same

    name = f"med_llama_tiny_lora_{stage}_medication_e3"
    flat = tmp_path / "flat.py"
    flat.write_text(config.compose(config.find(name)), encoding="utf-8")
    text = flat.read_text(encoding="utf-8")
    assert "_base_ =" not in text and "loss_beta = " in text and text.count(" PART ") == 5
    assert same(config.load(str(flat)).values, config.load(name).values)
    moved = config.load(str(flat), [("loss_beta", "0.7")]).values
    assert moved["model"]["beta"] == 0.7
    assert moved["train_dataset"]["kind"] == moved["val_dataset"]["kind"] == ("labels" if stage == "kto" else "pairs")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_qlora_and_full_fine_tunes_begin_at_the_reference_and_go_on_from_a_checkpoint(stage, model, files, tmp_path):
    for method in ("qlora", "full"):
        settings = {"method": method, "lr": 1e-3 if method == "qlora" else 1e-4}
        whole = train(loaded(stage, model, files, **settings), tmp_path / method)
        first = scalars(whole)[0]
        assert first == pytest.approx(0.5 if stage == "kto" else 0.693147, abs=1e-5)
        again = train(loaded(stage, model, files, **settings), tmp_path / method, str(tmp_path / method / "iter_3.pth"))
        assert again.metrics == whole.metrics


@pytest.mark.slow
def test_two_processes_train_what_one_does(model, files, tmp_path):
    settings = {**SETTINGS, "lora_dropout": 0.0, "accumulative_counts": 2}
    for stage in ("dpo", "kto"):
        losses = []
        for ranks, accumulated in ((1, 2), (2, 1)):
            work = tmp_path / f"{stage}{ranks}"
            settings["accumulative_counts"] = accumulated
            words = [f"{name}={value}" for name, value in settings.items()]
            words += [f"pretrained_model_name_or_path={model}", f"data_path={files[stage]}", f"--work-dir={work}"]
            done = run_cli("train", stage, *words, cwd=tmp_path, NPROC_PER_NODE=str(ranks))
            assert done.returncode == 0, done.stderr
            losses.append((scalars(work), scalars(work, "val_loss")))
        assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-4)
        assert losses[0][1] == pytest.approx(losses[1][1], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["kto", "dpo"])
def test_the_demo_trains_and_its_checkpoint_is_measured_converted_merged_and_chats(stage, tmp_path):
    name, work = f"med_llama_tiny_lora_{stage}_medication_e3", tmp_path / "work"

    def run(*words, **more):
        done = run_cli(*words, cwd=tmp_path, **more)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("train", name, f"--work-dir={work}", "max_steps=4", "evaluation_freq=100", "evaluation_max_new_tokens=4")
    run("test", name, "--checkpoint", str(work / "iter_4.pth"))
    run("convert", "pth_to_hf", name, str(work / "iter_4.pth"), "hf")
    run("convert", "merge", "med-llama-tiny", "hf", "merged")
    assert run("chat", "merged", "--max-new-tokens", "4", stdin="What is aspirin?\n")
