"""Qwen-1_8B-Chat, QLoRA, 3 epochs: Alpaca in English and Chinese."""

_base_ = "data/alpaca_enzh"
pretrained_model_name_or_path = "Qwen/Qwen-1_8B-Chat"
prompt_template = "qwen_chat"
method = "qlora"
max_epochs = 3
