"""Whole runs from a config: against a plain transformers + PEFT loop, against themselves, and what they leave."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
import torch
from helpers import (
    cli,
    padded_batch,
    run_cli,
    scalars,
    small_config,
    small_run,
    tiny_llama_folder,
    words_of,
    write_questions,
)
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from medtune.engine.train import build_runner, prepare_inputs, train
from medtune.errors import ConfigError, DataError, UsageError

STEPS = 100


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_questions(tmp_path_factory.mktemp("data") / "questions.jsonl")


def adapter_hash(work_dir, name="iter_4.pth"):
    return hashlib.sha256((Path(work_dir) / name / "adapter_model.safetensors").read_bytes()).hexdigest()


# ---------------------------------------------------------------- numbers


def plain_loop(llm, steps, lr, max_norm, warmup):
    """A loop as one would write it with transformers alone: padded rows, HF's loss, AdamW, clipping, cosine."""
    parameters = [p for p in llm.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.999), weight_decay=0)
    losses, norms = [], []
    for step, micro_batches in enumerate(steps):
        factor = (
            (step + 1) / (warmup + 1)
            if step < warmup
            else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (len(steps) - warmup)))
        )
        optimizer.param_groups[0]["lr"] = lr * factor
        batches = [padded_batch(samples) for samples in micro_batches]
        num_units = sum(int((batch["labels"] != -100).sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            loss = llm(**batch, num_items_in_batch=num_units).loss
            loss.backward()
            total += loss.item()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters, max_norm)))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses, norms


@pytest.mark.slow
@pytest.mark.parametrize(
    "checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "recompute"]
)
@pytest.mark.parametrize("method, max_norm", [("lora", 1.5), ("full", 3.0)])
def test_the_loss_curve_equals_a_plain_transformers_loop_in_the_same_order(
    tmp_path, model, data, method, max_norm, checkpointing
):
    config = small_config(
        model,
        data,
        method=method,
        lora_dropout=0.0,
        batch_size=2,
        max_steps=STEPS,
        lr=1e-3,
        max_norm=max_norm,
        warmup_ratio=0.2,
        use_activation_checkpointing=checkpointing,
    )
    runner = build_runner(config, prepare_inputs(config), tmp_path / "run")
    start = {name: p.detach().clone() for name, p in runner.model.llm.state_dict().items()}
    sampler, samples = runner.loop.sampler, runner.inputs.train_dataset.samples
    steps = []
    for step in range(STEPS):
        sampler.seek(*divmod(step, sampler.steps_per_epoch))
        steps.append([[samples[i] for i in micro] for micro in next(iter(sampler))])
    runner.train()

    plain = AutoModelForCausalLM.from_pretrained(model)
    if method == "lora":
        plain = get_peft_model(plain, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    plain.load_state_dict(start)
    wanted, norms = plain_loop(plain.train(), steps, lr=1e-3, max_norm=max_norm, warmup=STEPS // 5)
    assert scalars(runner) == pytest.approx(wanted, rel=1e-6)
    assert scalars(runner, "grad_norm") == pytest.approx(norms, rel=1e-5)
    assert max(norms) > max_norm > min(norms)  # some steps are clipped, some are not
    assert wanted[-1] < wanted[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_every_method_trains_in_every_dtype(tmp_path, model, data, method, dtype):
    runner = small_run(
        tmp_path, model, data, method=method, torch_dtype=dtype, lora_dropout=0.0, accumulative_counts=12, max_steps=3
    )
    losses = scalars(runner)
    assert losses[0] > losses[1] > losses[2], losses
    assert all(map(math.isfinite, losses))
    trained = runner.model.trainable_parameters()
    assert {p.dtype for p in trained.values()} == {torch.float32}
    assert all(("lora_" in name) == (method != "full") for name in trained)


@pytest.mark.parametrize("bits", [4, 8])
def test_qlora_has_quantised_weights_and_no_weight_but_the_adapters_is_trained(tmp_path, model, data, bits):
    runner = small_run(tmp_path, model, data, method="qlora", quantization_bits=bits, torch_dtype="bf16")
    assert {4: "Linear4bit", 8: "Linear8bitLt"}[bits] in {type(m).__name__ for m in runner.model.modules()}
    assert scalars(runner)[-1] < scalars(runner)[0]
    assert {f.name for f in (tmp_path / "iter_4.pth").glob("*.safetensors")} == {
        "adapter_model.safetensors",
        "optimizer.safetensors",
        "rank_00000.safetensors",
    }
    card = json.loads((tmp_path / "iter_4.pth" / "medtune.json").read_text())
    assert card["method"] == "qlora"


# ---------------------------------------------------------------- the same again


@pytest.mark.slow
def test_two_runs_with_one_seed_give_the_same_adapter_and_another_seed_another(tmp_path, model, data):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        small_run(tmp_path / name, model, data, seed=seed)
    assert adapter_hash(tmp_path / "a") == adapter_hash(tmp_path / "b") != adapter_hash(tmp_path / "c")


@pytest.mark.slow
def test_a_run_in_another_process_with_another_hash_seed_gives_the_same_adapter(tmp_path, model, data):
    small_run(tmp_path / "here", model, data)
    done = run_cli(*words_of(model, data), "--work-dir", "there", cwd=tmp_path, PYTHONHASHSEED="12345")
    assert done.returncode == 0, done.stderr
    assert adapter_hash(tmp_path / "here") == adapter_hash(tmp_path / "there")


def test_the_config_beside_the_logs_trains_the_same_run_again(tmp_path, model, data):
    from medtune import config

    first = small_run(tmp_path / "a", model, data, lora_r=2)
    again = config.load(str(next((tmp_path / "a").glob("*/vis_data/config.py"))))
    second = train(again, tmp_path / "b")
    assert scalars(first) == scalars(second)
    assert adapter_hash(tmp_path / "a") == adapter_hash(tmp_path / "b")


# ---------------------------------------------------------------- what a run leaves


def test_a_lora_checkpoint_holds_the_adapter_alone_and_loads_in_plain_peft(tmp_path, model, data):
    runner = small_run(tmp_path, model, data)
    folder = tmp_path / "iter_4.pth"
    assert sorted(f.name for f in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "config.py",
        "manifest.json",
        "medtune.json",
        "optimizer.safetensors",
        "rank_00000.safetensors",
        "state.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    with safe_open(folder / "adapter_model.safetensors", "pt") as stored:
        assert all(".lora_A.weight" in name or ".lora_B.weight" in name for name in stored.keys())  # noqa: SIM118
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model), folder).eval()
    ids = torch.arange(10, 40)[None]
    with torch.no_grad():
        wanted = runner.model.eval().llm(ids).logits
        torch.testing.assert_close(plain(ids).logits, wanted, rtol=1e-5, atol=1e-5)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == str(model)


def test_a_full_checkpoint_loads_in_plain_transformers_in_the_training_dtype(tmp_path, model, data):
    runner = small_run(tmp_path, model, data, method="full", torch_dtype="bf16", lr=1e-3)
    folder = tmp_path / "iter_4.pth"
    assert not (folder / "adapter_config.json").exists()
    plain = AutoModelForCausalLM.from_pretrained(folder)
    assert plain.dtype == torch.bfloat16
    for (name, stored), (_, trained) in zip(plain.named_parameters(), runner.model.llm.named_parameters(), strict=True):
        assert torch.equal(stored, trained.bfloat16()), name
    masters = [name for name in load_file(folder / "optimizer.safetensors") if name.startswith("master.")]
    assert len(masters) == len(list(plain.parameters()))


def test_the_saved_tokenizer_has_the_chat_template_that_was_trained_on(tmp_path, model, data):
    runner = small_run(tmp_path, model, data, prompt_template="llama2_chat", max_steps=1)
    saved = AutoTokenizer.from_pretrained(tmp_path / "iter_1.pth")
    messages = [{"role": "user", "content": "Dose?"}]
    assert "[INST]" in saved.apply_chat_template(messages, tokenize=False)
    assert "[INST]" in saved.decode(runner.inputs.train_dataset.samples[0]["input_ids"])
    card = json.loads((tmp_path / "iter_1.pth" / "medtune.json").read_text())
    assert card["prompt_template"] == "llama2_chat"


def test_the_card_says_what_was_trained_on_what(tmp_path, model, data):
    runner = small_run(tmp_path, model, data, SYSTEM="Be brief.")
    card = json.loads((tmp_path / "iter_4.pth" / "medtune.json").read_text())
    report = runner.inputs.train_dataset.report.encoded
    assert (card["stage"], card["method"], card["system"], card["max_length"]) == ("sft", "lora", "Be brief.", 96)
    assert card["base_model"]["name_or_path"] == str(model)
    assert len(card["base_model"]["fingerprint"]) == 64
    assert card["data"]["num_trained_tokens"] == report.num_trained_tokens
    assert (card["progress"]["step"], card["progress"]["num_steps"]) == (4, 4)
    assert card["progress"]["loss"] == scalars(runner)[-1]


@pytest.mark.parametrize(
    "settings, names",
    [
        ({"max_steps": None, "max_epochs": 2}, ["epoch_1.pth", "epoch_2.pth"]),
        ({"max_steps": None, "max_epochs": 1.5}, ["epoch_1.pth", "iter_9.pth"]),
        ({"max_steps": 5, "save_steps": 2}, ["iter_2.pth", "iter_4.pth", "iter_5.pth"]),
        ({"max_steps": 5, "save_steps": 1, "save_total_limit": 2}, ["iter_4.pth", "iter_5.pth"]),
        ({"max_steps": 4, "save_steps": 2, "save_total_limit": 1}, ["iter_4.pth"]),
    ],
    ids=str,
)
def test_checkpoints_are_written_when_asked_for_and_old_ones_go_at_the_limit(tmp_path, model, data, settings, names):
    runner = small_run(tmp_path, model, data, **settings)
    assert runner.loop.steps_per_epoch == 6
    assert sorted(f.name for f in tmp_path.glob("*.pth")) == names
    assert (tmp_path / "last_checkpoint").read_text() == f"{names[-1]}\n"
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_runs_folder_is_its_owners_alone(tmp_path, model, data):
    small_run(tmp_path / "run", model, data, max_steps=1)
    folders = [tmp_path / "run", *(f for f in (tmp_path / "run").rglob("*") if f.is_dir())]
    assert {f.stat().st_mode & 0o777 for f in folders} == {0o700}


def test_no_text_of_the_data_is_in_the_logs_or_beside_the_weights(tmp_path, model, data):
    """The file's sample generations are not on: nothing else may hold a patient's words."""
    small_run(tmp_path, model, data, val_ratio=0.2)
    texts = [v for line in data.read_text().splitlines() for v in json.loads(line).values() if len(v) > 20]
    files = [f for f in tmp_path.rglob("*") if f.is_file() and f.suffix in (".log", ".json", ".py", ".jinja")]
    assert len(files) > 5
    assert not any(text in file.read_text() for file in files for text in texts)


# ---------------------------------------------------------------- refused


def test_a_work_dir_with_checkpoints_is_refused_and_moved_aside_when_asked(tmp_path, model, data):
    config = small_config(model, data, max_steps=1)
    train(config, tmp_path / "run")
    before = adapter_hash(tmp_path / "run", "iter_1.pth")
    with pytest.raises(UsageError, match=r"--resume auto.*--overwrite"):
        train(config, tmp_path / "run")
    train(config, tmp_path / "run", overwrite=True)
    aside = [f for f in tmp_path.iterdir() if f.name.startswith("run_before_")]
    assert len(aside) == 1
    assert adapter_hash(aside[0], "iter_1.pth") == before
    assert len(list((tmp_path / "run").glob("*/vis_data"))) == 1


def test_overwrite_does_not_move_a_running_trainings_folder(tmp_path, model, data):
    from medtune.engine import checkpoint

    config = small_config(model, data, max_steps=1)
    train(config, tmp_path / "run")
    with checkpoint.lock(tmp_path / "run"), pytest.raises(UsageError, match="another training writes there"):
        train(config, tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "iter_1.pth").is_dir()


def test_a_fault_of_config_or_data_is_told_before_anything_is_written(tmp_path, model, data):
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"question": "a?", "answer": ""}\n')
    with pytest.raises(DataError, match=r"empty\.jsonl:1: the answer is empty"):
        train(small_config(model, empty), tmp_path / "run")
    with pytest.raises(ConfigError, match="seed"):
        train(small_config(model, data, seed=-1), tmp_path / "run")
    with pytest.raises(ConfigError, match="prompt_template"):
        train(small_config(model, data, prompt_template="llama2_caht"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_answer_is_left_out_when_asked_for(tmp_path, model):
    file = tmp_path / "rows.jsonl"
    rows = [{"question": f"{i}?", "answer": "" if i == 1 else "Twice a day."} for i in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    runner = small_run(tmp_path / "run", model, file, drop_empty=True, max_steps=1)
    assert len(runner.inputs.train_dataset.samples) == 3
    assert "left out 1: empty answer" in next((tmp_path / "run").glob("*/*.log")).read_text()


@pytest.mark.slow
def test_on_the_command_line_a_run_says_little_and_nothing_on_stderr(tmp_path, model, data):
    done = run_cli(*words_of(model, data, max_steps=2), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) < 12
    assert done.stdout.splitlines()[-1] == "done: 2 steps; checkpoints in work_dirs/sft"


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_command_with_3_and_names_the_rows(tmp_path, model, data):
    done = run_cli(*words_of(model, data, method="full", lr=1e30, max_norm=None, max_steps=4), cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert "at step 2" in line and "questions.jsonl:" in line
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "work_dirs" / "sft").glob("*.pth"))


def test_the_command_is_this_checkouts():
    assert cli("train")[1:3] == ["-m", "medtune"]
