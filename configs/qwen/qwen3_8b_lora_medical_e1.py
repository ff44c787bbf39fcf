"""Qwen3-8B, LoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "lora"
max_epochs = 1
