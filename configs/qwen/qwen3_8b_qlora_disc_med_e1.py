"""Qwen3-8B, QLoRA, 1 epoch: Chinese consultations (DISC-Med-SFT)."""

_base_ = "data/disc_med"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 1
