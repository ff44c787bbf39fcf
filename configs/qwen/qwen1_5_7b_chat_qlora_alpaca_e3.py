"""Qwen1.5-7B-Chat, QLoRA, 3 epochs: Alpaca."""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "Qwen/Qwen1.5-7B-Chat"
method = "qlora"
max_epochs = 3
