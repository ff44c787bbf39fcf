"""Qwen3-8B, QLoRA, 1 epoch: Chinese medical pairs, SimPO."""

_base_ = "data/simpo_medical"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 1
