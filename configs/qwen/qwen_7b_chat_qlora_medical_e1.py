"""Qwen-7B-Chat, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "Qwen/Qwen-7B-Chat"
prompt_template = "qwen_chat"
method = "qlora"
max_epochs = 1
