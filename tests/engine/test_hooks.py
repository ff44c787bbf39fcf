"""Hooks: what they write, and that they never change the numbers."""

from __future__ import annotations

import json
import math
import stat

import pytest
import torch
from helpers import padded_batch, scalars, small_run, tiny_llama_folder, write_questions
from peft import PeftModel
from transformers import AutoModelForCausalLM

from medtune.engine.plot import read_scalars


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl")


def adapter(work_dir):
    newest = (work_dir / "last_checkpoint").read_text().strip()
    return (work_dir / newest / "adapter_model.safetensors").read_bytes()


def log_of(work_dir):
    return next(work_dir.glob("*/*.log")).read_text()


@pytest.mark.slow
def test_the_logged_loss_is_the_mean_over_the_trained_tokens_of_the_interval(tmp_path, model, data):
    each = small_run(tmp_path / "each", model, data, max_steps=6)
    third = small_run(tmp_path / "third", model, data, max_steps=6, logging_interval=3)
    assert adapter(tmp_path / "each") == adapter(tmp_path / "third")
    losses, tokens = scalars(each), units_of_steps(each)
    assert len(losses) == 6
    wanted = [losses[0]]  # the first step is logged alone, then each interval
    for interval in (slice(1, 3), slice(3, 6)):
        weighted = sum(x * n for x, n in zip(losses[interval], tokens[interval], strict=True))
        wanted.append(weighted / sum(tokens[interval]))
    assert len(set(tokens[1:3])) > 1  # else a plain mean would do
    assert scalars(third) == pytest.approx(wanted, rel=1e-6)


def units_of_steps(runner):
    samples, sampler = runner.inputs.train_dataset.samples, runner.loop.sampler
    sampler.seek(0)
    return [sum(int(samples.num_trained[i]) for micro in step for i in micro) for step in sampler]


def test_each_record_holds_the_progress_and_both_files_parse(tmp_path, model, data):
    runner = small_run(tmp_path, model, data, max_steps=6, lr=1e-2)
    records = [json.loads(line) for line in (runner.vis_dir / "scalars.json").read_text().splitlines()]
    dated = [json.loads(line) for line in (runner.vis_dir / f"{runner.timestamp}.json").read_text().splitlines()]
    assert records == dated
    assert [r["step"] for r in records] == [1, 2, 3, 4, 5, 6]
    report = runner.inputs.train_dataset.report.encoded
    assert (records[-1]["tokens"], records[-1]["samples"]) == (report.num_tokens, report.num_samples)  # one epoch
    assert records[-1]["epoch"] == 1.0
    assert records[0]["lr"] == pytest.approx(1e-2 / 2)
    assert all(record[name] > 0 for record in records for name in ("time", "tokens_per_sec", "memory", "grad_norm"))
    assert "Iter(train) [6/6]" in log_of(tmp_path)


def test_the_curves_are_drawn(tmp_path, model, data):
    small_run(tmp_path, model, data, plot=True, val_ratio=0.2, max_steps=2)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    found = read_scalars(tmp_path)
    assert list(found["loss"]) == [1, 2]
    assert list(found["val_loss"]) == [2]


def test_of_two_restarts_the_later_scalars_count(tmp_path):
    for stamp, value in (("20260101_000000", 3.0), ("20260102_000000", 2.0)):
        folder = tmp_path / stamp / "vis_data"
        folder.mkdir(parents=True)
        (folder / "scalars.json").write_text(json.dumps({"loss": value, "step": 5}) + "\n")
    assert read_scalars(tmp_path)["loss"] == {5: 2.0}


def test_sample_answers_go_to_a_private_file_and_change_no_bit_of_the_training(tmp_path, model, data):
    quiet = small_run(tmp_path / "quiet", model, data, max_steps=6)
    asking = small_run(
        tmp_path / "asking",
        model,
        data,
        max_steps=6,
        evaluation_inputs=["What is aspirin for?", "布洛芬？"],
        evaluation_freq=2,
        evaluation_max_new_tokens=5,
    )
    assert adapter(tmp_path / "quiet") == adapter(tmp_path / "asking")
    assert scalars(quiet) == scalars(asking)
    files = sorted(f.name for f in asking.vis_dir.glob("eval_outputs_iter_*.txt"))
    assert files == [f"eval_outputs_iter_{n}.txt" for n in (0, 2, 4, 6)]
    for name in files:
        file = asking.vis_dir / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file.read_text().count("Question: ") == file.read_text().count("Answer: ") == 2
    assert "aspirin" not in log_of(tmp_path / "asking")
    assert "2 answers" in log_of(tmp_path / "asking")


def test_one_question_may_be_given_without_a_list(tmp_path, model, data):
    options = {"custom_hooks.3.evaluation_inputs": "Fever?", "evaluation_max_new_tokens": 3}
    runner = small_run(tmp_path, model, data, max_steps=1, **options)
    assert (runner.vis_dir / "eval_outputs_iter_1.txt").read_text().count("Question: ") == 1


def independent_validation(model, folder, samples):
    """Validation loss and accuracy by plain PEFT, one padded batch."""
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder).eval()
    batch = padded_batch([samples[i] for i in range(len(samples))])
    with torch.no_grad():
        output = plain(**batch)
    targets = batch["labels"][:, 1:]
    correct = (output.logits[:, :-1].argmax(-1) == targets)[targets != -100]
    return output.loss.item(), correct.double().mean().item()


@pytest.mark.slow
def test_validation_loss_and_accuracy_equal_plain_peft_whatever_the_batch_size(tmp_path, model, data):
    found = []
    for size in (1, 3, 100):
        options = {"val_dataloader.batch_size": size}
        runner = small_run(tmp_path / str(size), model, data, val_ratio=0.3, max_steps=3, **options)
        found.append((scalars(runner, "val_loss")[-1], scalars(runner, "val_accuracy")[-1]))
    samples = runner.inputs.val_data.dataset.samples
    assert 3 < len(samples) < 24 - len(runner.inputs.train_dataset.samples) + 1
    loss, accuracy = independent_validation(model, tmp_path / "100" / "iter_3.pth", samples)
    for got_loss, got_accuracy in found:
        assert got_loss == pytest.approx(loss, rel=1e-6)
        assert got_accuracy == pytest.approx(accuracy, abs=1e-12)
    assert scalars(runner, "val_perplexity")[-1] == pytest.approx(math.exp(loss), rel=1e-5)
    assert f"val_loss: {loss:.4f}" in log_of(tmp_path / "100")


def test_a_validation_between_the_steps_changes_no_bit_of_the_training(tmp_path, model, data):
    often = small_run(tmp_path / "often", model, data, val_ratio=0.3, max_steps=6, eval_steps=1)
    once = small_run(tmp_path / "once", model, data, val_ratio=0.3, max_steps=6, eval_steps=6)
    assert adapter(tmp_path / "often") == adapter(tmp_path / "once")
    assert len(scalars(often, "val_loss")) == 6
    assert scalars(often, "val_loss")[-1:] == scalars(once, "val_loss")


def test_tensorboard_events_are_written_when_asked_for(tmp_path, model, data):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runner = small_run(tmp_path, model, data, tensorboard=True)
    runner.visualizer.close()
    events = EventAccumulator(str(runner.vis_dir))
    events.Reload()
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(scalars(runner), rel=1e-6)
    assert (runner.vis_dir / "scalars.json").exists()


def test_the_data_report_is_in_the_log(tmp_path, model, data):
    runner = small_run(tmp_path, model, data, max_steps=1, max_train_samples=20)
    for line in runner.inputs.train_dataset.report.lines():
        assert f"data: {line}" in log_of(tmp_path)
    assert "left out 4: not drawn (max_dataset_length)" in log_of(tmp_path)
