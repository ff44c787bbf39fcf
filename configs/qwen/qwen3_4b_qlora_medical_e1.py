"""Qwen3-4B, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "Qwen/Qwen3-4B"
method = "qlora"
max_epochs = 1
