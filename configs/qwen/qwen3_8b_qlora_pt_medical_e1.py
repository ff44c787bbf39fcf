"""Qwen3-8B, QLoRA, 1 epoch: a Chinese medical encyclopedia, pre-training."""

_base_ = "data/pt_medical"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 1
