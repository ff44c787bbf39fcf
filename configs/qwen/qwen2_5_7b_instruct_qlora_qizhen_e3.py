"""Qwen2.5-7B-Instruct, QLoRA, 3 epochs: Chinese questions on medicines (QiZhenGPT)."""

_base_ = "data/qizhen"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 3
