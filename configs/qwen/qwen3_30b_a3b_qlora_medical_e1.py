"""Qwen3-30B-A3B, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "Qwen/Qwen3-30B-A3B"
method = "qlora"
lora_dropout = 0  # PEFT adapts experts without dropout
max_epochs = 1
