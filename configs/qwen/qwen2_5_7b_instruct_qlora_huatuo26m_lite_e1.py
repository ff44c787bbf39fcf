"""Qwen2.5-7B-Instruct, QLoRA, 1 epoch: Chinese medical questions (Huatuo26M-Lite)."""

_base_ = "data/huatuo26m_lite"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 1
