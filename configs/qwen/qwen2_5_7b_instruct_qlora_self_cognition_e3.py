"""Qwen2.5-7B-Instruct, QLoRA, 3 epochs: who the model is and who made it."""

_base_ = "data/self_cognition"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 3
