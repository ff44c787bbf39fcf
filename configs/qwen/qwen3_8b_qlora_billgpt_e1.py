"""Qwen3-8B, QLoRA, 1 epoch: Chinese consultations (BillGPT)."""

_base_ = "data/billgpt"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 1
