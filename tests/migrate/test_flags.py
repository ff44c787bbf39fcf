"""LLaMA-Factory's files and commands, and MedicalGPT's scripts, become configs."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT
from migrate_helpers import load_small, migrated, written

from medtune.build import check
from medtune.errors import ConfigError
from medtune.migrate.reading import read

CARELLAMA = """\
#!/bin/bash
accelerate launch src/train_bash.py \\
    --stage sft \\
    --model_name_or_path ./Llama-2-7b-chat-hf \\
    --do_train --dataset mm --finetuning_type lora --quantization_bit 4 --overwrite_cache \\
    --output_dir output --per_device_train_batch_size 8 --gradient_accumulation_steps 4 \\
    --lr_scheduler_type cosine --logging_steps 10 --save_steps 1000 --learning_rate 5e-5 \\
    --num_train_epochs 2.0 --plot_loss --fp16 --template llama2 --lora_target q_proj,v_proj  # 7B
"""
YAML = """\
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
stage: sft
do_train: true
finetuning_type: lora
lora_target: all
dataset: identity,alpaca_en_demo
template: llama3
cutoff_len: 1024
learning_rate: 1e-4
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
val_size: 0.1
eval_strategy: steps
eval_steps: 50
"""
COMMON = """--per_device_train_batch_size 4 --per_device_eval_batch_size 4 --do_train --seed 42 --fp16 \\
    --max_train_samples 1000 --max_eval_samples 10 --num_train_epochs 1.0 --learning_rate 2e-5 --warmup_ratio 0.05 \\
    --weight_decay 0.01 --logging_strategy steps --logging_steps 10 --eval_strategy steps --eval_steps 50 \\
    --save_steps 500 --save_strategy steps --save_total_limit 3 --gradient_accumulation_steps 1 \\
    --preprocessing_num_workers 8 --output_dir outputs --overwrite_output_dir --ddp_timeout 30000 \\
    --logging_first_step True --target_modules q_proj,v_proj,k_proj,o_proj --lora_rank 8 --lora_alpha 32 \\
    --lora_dropout 0.05 --torch_dtype float16 --device_map auto --report_to tensorboard \\
    --ddp_find_unused_parameters False --gradient_checkpointing True
"""


def medicalgpt(script: str, flags: str) -> str:
    command = f"torchrun --nnodes 1 --nproc_per_node 8 scripts/{script} --model_name_or_path $MODEL"
    return f"MODEL=bigscience/bloomz-560m\n{command} {flags} {COMMON}"


def test_carellamas_command_becomes_a_config_with_all_of_its_flags(tmp_path):
    outcome, new = migrated(CARELLAMA, tmp_path, "train.sh")
    assert written(new) == {
        "_base_": "sft",
        "pretrained_model_name_or_path": "./Llama-2-7b-chat-hf",
        "method": "qlora",
        "lora_r": 8,
        "lora_dropout": 0.0,
        "lora_target_modules": ["q_proj", "v_proj"],
        "data_path": "mm",
        "prompt_template": "llama2_chat",
        "overflow": "truncate",
        "pack_to_max_length": False,
        "overwrite_cache": True,
        "batch_size": 8,
        "accumulative_counts": 4,
        "max_epochs": 2.0,
        "lr": 5e-5,
        "warmup_ratio": 0.0,
        "save_steps": 1000,
        "work_dir": "output",
    }
    assert outcome.missing == []
    assert check(load_small(new).values) == []


def test_a_yaml_of_llama_factory_with_a_rate_that_yaml_reads_as_text(tmp_path):
    outcome, new = migrated(YAML, tmp_path, "llama3.yaml")
    told = written(new)
    assert (told["lr"], told["torch_dtype"], told["warmup_ratio"]) == (1e-4, "bf16", 0.1)
    assert (told["data_path"], told["max_length"]) == (["identity", "alpaca_en_demo"], 1024)
    assert (told["val_ratio"], told["eval_steps"]) == (0.1, 50)
    assert (told["batch_size"], told["accumulative_counts"], told["save_steps"]) == (8, 1, 500)  # its defaults
    assert any("not given, so the defaults" in line and "lora_rank 8" in line for line in outcome.mapped)
    assert check(load_small(new).values) == []


@pytest.mark.parametrize(
    "script, flags, stage",
    [
        (
            "run_pretraining.py",
            "--dataset_name shibing624/medical --dataset_config_name pretrain --block_size 1024",
            "pt",
        ),
        ("run_supervised_finetuning.py", "--train_file_dir ./data/finetune --max_length 512", "sft"),
        ("supervised_finetuning.py", "--train_file_dir ./data/finetune --load_in_8bit True", "sft"),
        ("reward_modeling.py", "--train_file_dir ./data/reward --max_source_length 1024 --max_target_length 256", "rm"),
        ("dpo_training.py", "--train_file_dir ./data/reward --max_source_length 1024 --max_target_length 512", "dpo"),
    ],
)
def test_medicalgpts_scripts_become_configs(script, flags, stage, tmp_path):
    outcome, new = migrated(medicalgpt(script, flags), tmp_path, "run.sh")
    told = written(new)
    assert (outcome.origin, told["_base_"]) == ("MedicalGPT", stage)
    assert told["pretrained_model_name_or_path"] == "bigscience/bloomz-560m"
    assert (told["lora_r"], told["lora_target_modules"]) == (8, ["q_proj", "v_proj", "k_proj", "o_proj"])
    assert told["lr_schedule"] == "linear"
    assert "8 processes: `NPROC_PER_NODE=8 medtune train CONFIG`" in outcome.missing
    values = load_small(new).values
    assert values["warmup_ratio"] == 0.05
    assert values["lora_alpha"] == 32
    assert check(values) == []


def test_pre_training_keeps_the_subset_and_the_block_size(tmp_path):
    flags = "--dataset_name shibing624/medical --dataset_config_name pretrain --block_size 512"
    _, new = migrated(medicalgpt("run_pretraining.py", flags), tmp_path)
    assert written(new)["data_path"] == "[dict(path='shibing624/medical', subset='pretrain')]"
    assert written(new)["block_size"] == 512


@pytest.mark.parametrize(
    "flags, ratio", [("--validation_split_percentage 0.001", 0.001), ("--validation_split_percentage 5", 0.05)]
)
def test_the_share_for_validation_is_a_share(flags, ratio):
    text = medicalgpt("supervised_finetuning.py", f"--train_file_dir ./data {flags}")
    assert read(text, "run.sh").settings["val_ratio"] == ratio


def test_unknown_flags_are_listed_with_near_ones():
    missing = read(CARELLAMA.replace("--do_train", "--do_train --frobnicate 3 --neftune_noise_alfa 5"), "a.sh").missing
    assert missing[0] == "--frobnicate: unknown, left out."
    assert "Did you mean 'neftune_noise_alpha'" in missing[1]


@pytest.mark.parametrize(
    "text, told",
    [
        (CARELLAMA.replace("--stage sft", "--stage sfft"), "stage 'sfft' is none of"),
        (CARELLAMA.replace("lora ", "freeze "), "finetuning_type 'freeze'"),
        (CARELLAMA.replace("_type lora", "_type full"), "quantization_bit goes with finetuning_type lora"),
        (CARELLAMA.replace("./Llama-2-7b-chat-hf", "$HOME/llama"), "$HOME is known to the shell alone"),
        (CARELLAMA.replace("./Llama-2-7b-chat-hf", "$(pwd)/llama"), "is known to the shell alone"),
        (CARELLAMA + CARELLAMA, "got 2"),
        (CARELLAMA.replace("--stage sft", "--stage sft pt"), "stage wants one value, got 2"),
        (CARELLAMA.replace("--do_train", "--lora_rank eight"), "lora_rank wants a number, got 'eight'"),
        (CARELLAMA + "echo 'unclosed\n", "No closing quotation"),
        ("stage: sft\n  lora_rank: [8\n", "not YAML"),
        ("hello: world\n", "wanted an XTuner config (Python), a LLaMA-Factory YAML file"),
        ("", "wanted an XTuner config (Python)"),
        ("llamafactory-cli train examples/a.yaml\n", "its flags are in examples/a.yaml"),
    ],
)
def test_what_cannot_be_migrated_is_refused_in_one_line(text, told, tmp_path):
    with pytest.raises(ConfigError) as caught:
        migrated(text, tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_stage_without_a_base_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("medtune.migrate.outcome.base_configs", lambda: {"sft": None})
    with pytest.raises(ConfigError) as caught:
        migrated(CARELLAMA.replace("--stage sft", "--stage ppo"), tmp_path, "train.sh")
    told = "train.sh: it trains PPO, for which there is no base here yet: sft (supervised fine-tuning)."
    assert str(caught.value) == told


def test_yaml_makes_no_objects():
    with pytest.raises(ConfigError, match="not YAML"):
        read("stage: !!python/object/apply:os.system ['true']\n", "a.yaml")


def test_the_page_maps_every_flag_of_the_two_readmes():
    """The flags of CareLlama's command and of MedicalGPT's four stages, each with the setting it becomes."""
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    others = (
        "--tokenizer_name_or_path --dataset_name --dataset_config_name --validation_split_percentage --block_size "
        "--max_length --load_in_8bit --deepspeed --reward_model_name_or_path --mini_batch_size --output_max_length "
        "--early_stopping --target_kl --reward_baseline"
    )
    flags = set(re.findall(r"--(\w+)", CARELLAMA + medicalgpt("x.py", others)))
    assert len(flags) > 50
    assert {flag for flag in flags if f"`--{flag}`" not in page} == set()
