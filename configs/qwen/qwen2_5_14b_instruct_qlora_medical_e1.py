"""Qwen2.5-14B-Instruct, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "Qwen/Qwen2.5-14B-Instruct"
method = "qlora"
max_epochs = 1
