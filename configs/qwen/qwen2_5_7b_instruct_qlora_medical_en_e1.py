"""Qwen2.5-7B-Instruct, QLoRA, 1 epoch: English medical questions (shibing624/medical)."""

_base_ = "data/medical_en"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 1
