"""Qwen-7B-Chat, QLoRA, 3 epochs: OpenAssistant's best replies."""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "Qwen/Qwen-7B-Chat"
prompt_template = "qwen_chat"
method = "qlora"
max_epochs = 3
