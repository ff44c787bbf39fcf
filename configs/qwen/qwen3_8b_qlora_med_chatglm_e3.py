"""Qwen3-8B, QLoRA, 3 epochs: Chinese medical questions (Med-ChatGLM)."""

_base_ = "data/med_chatglm"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 3
