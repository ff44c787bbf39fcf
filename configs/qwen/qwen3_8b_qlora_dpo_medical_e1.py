"""Qwen3-8B, QLoRA, 1 epoch: Chinese medical pairs, DPO."""

_base_ = "data/dpo_medical"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 1
