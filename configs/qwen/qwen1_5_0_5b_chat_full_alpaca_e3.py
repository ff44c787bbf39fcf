"""Qwen1.5-0.5B-Chat, full fine-tune, 3 epochs: Alpaca."""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "Qwen/Qwen1.5-0.5B-Chat"
method = "full"
lr = 2e-5
max_epochs = 3
