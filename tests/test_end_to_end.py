"""The tutorial's road by the real command line, and what the commands show on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import run_cli

NAME = "med_llama_tiny_lora_medqa_e3"


def lines_between(text: str, first: str, last: str) -> list[str]:
    lines = text.splitlines()
    return lines[lines.index(first) + 1 : lines.index(last)]


@pytest.mark.slow
def test_the_road_from_a_config_to_a_conversation(tmp_path, shared):
    sheet = shared / "data" / "internlm-tutorial-medqa2019" / "MedQA2019.xlsx"
    base = shared / "models" / "med-llama-tiny"

    def medtune(*words: str, stdin: str = "") -> str:
        done = run_cli(*map(str, words), cwd=tmp_path, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert NAME in medtune("list-cfg", "-p", "tiny_lora").split()
    medtune("copy-cfg", NAME, ".")
    settings = [f"pretrained_model_name_or_path={base}", f"data_path={sheet}", "max_epochs=0.05", "val_ratio=0.1"]
    settings += ["max_length=512", "evaluation_inputs=[]"]
    medtune("train", settings[0], f"./{NAME}_copy.py", *settings[1:4], "--cfg-options", *settings[4:])
    run = tmp_path / "work_dirs" / f"{NAME}_copy"
    (log,) = run.glob("*/*.log")
    assert {"scalars.json", "config.py", f"{log.stem}.json"} <= {f.name for f in (log.parent / "vis_data").iterdir()}
    assert (run / "loss.png").is_file()
    checkpoint = run / (run / "last_checkpoint").read_text().strip()
    medtune("convert", "pth_to_hf", f"{NAME}_copy.py", checkpoint, "hf")
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "medtune_config.py"} <= {
        f.name for f in (tmp_path / "hf").iterdir()
    }
    medtune("convert", "merge", base, "hf", "merged", "--max-shard-size", "4MB", "--verify")
    assert len(list((tmp_path / "merged").glob("model-*.safetensors"))) > 3
    question = "What is aspirin?\n"
    whole = ("--max-new-tokens", "12", "--temperature", "0")
    merged = medtune("chat", "./merged", *whole, stdin=question)
    adapted = medtune("chat", base, "--adapter", "./hf", *whole, "--torch-dtype", "fp32", stdin=question)
    assert merged.strip() and adapted.strip()

    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(4, 40)[None]
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    adapter = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), tmp_path / "hf"
    )
    with torch.no_grad():
        difference = (plain(ids).logits - adapter(ids).logits).abs().max()
    assert difference < 0.2  # the merged weights are rounded to the base's bf16


def test_log_dataset_shows_the_text_and_the_trained_tokens_alone(capsys):
    from medtune.cli import main

    assert main(["log-dataset", NAME, "--show", "all"]) == 0
    told = capsys.readouterr().out
    origin = "of sample 0 (medication_qa.xlsx!MedicationQA!A2)"
    text = lines_between(told, f"#### text {origin}", f"#### masked_text {origin}")
    masked = lines_between(told, f"#### masked_text {origin}", f"#### input_ids {origin}")
    ids = json.loads(lines_between(told, f"#### input_ids {origin}", f"#### labels {origin}")[0])
    labels = json.loads(told.splitlines()[-1])
    assert text[0] == "<|im_start|>system" and "paracetamol" in text[3]
    assert masked[0].startswith("For most adults the maximum is 4 g") and masked[-1].endswith("<|im_end|>")
    assert len(ids) == len(labels) and all(label in (-100, token) for label, token in zip(labels, ids, strict=True))
    assert labels[0] == -100 and sum(label != -100 for label in labels) > 10


def test_check_shows_the_report_and_one_sample_with_its_trained_tokens_marked(capsys):
    from medtune.cli import main

    assert main(["train", NAME, "--check"]) == 0
    told = capsys.readouterr().out
    assert "no fault found" in told and "72" in told
    assert "<|im_start|>assistant\n[[For most adults" in told and "<|im_end|>]]" in told
    assert not Path("work_dirs").exists()


def test_check_custom_dataset_reports_every_row(capsys):
    from medtune.cli import main

    assert main(["check-custom-dataset", NAME, "max_train_samples=10"]) == 0
    told = capsys.readouterr().out
    assert "rows 72" in told and "the data set is ready to train on" in told
