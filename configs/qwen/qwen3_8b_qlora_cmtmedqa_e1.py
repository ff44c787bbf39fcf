"""Qwen3-8B, QLoRA, 1 epoch: Chinese consultations in turns (CMtMedQA)."""

_base_ = "data/cmtmedqa"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 1
