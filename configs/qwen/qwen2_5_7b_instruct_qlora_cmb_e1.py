"""Qwen2.5-7B-Instruct, QLoRA, 1 epoch: Chinese medical examinations (CMB-Exam)."""

_base_ = "data/cmb"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 1
