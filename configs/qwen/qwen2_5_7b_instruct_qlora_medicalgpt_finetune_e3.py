"""Qwen2.5-7B-Instruct, QLoRA, 3 epochs: Chinese medical questions (MedicalGPT)."""

_base_ = "data/medicalgpt_finetune"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 3
