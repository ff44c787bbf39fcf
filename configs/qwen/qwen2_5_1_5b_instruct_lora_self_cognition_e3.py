"""Qwen2.5-1.5B-Instruct, LoRA, 3 epochs: who the model is and who made it."""

_base_ = "data/self_cognition"
pretrained_model_name_or_path = "Qwen/Qwen2.5-1.5B-Instruct"
method = "lora"
max_epochs = 3
