"""Qwen3-8B, QLoRA, 1 epoch: Chinese medical pairs, ORPO."""

_base_ = "data/orpo_medical"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 1
