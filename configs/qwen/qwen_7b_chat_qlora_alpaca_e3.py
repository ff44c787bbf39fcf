"""Qwen-7B-Chat, QLoRA, 3 epochs: Alpaca."""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "Qwen/Qwen-7B-Chat"
prompt_template = "qwen_chat"
method = "qlora"
max_epochs = 3
