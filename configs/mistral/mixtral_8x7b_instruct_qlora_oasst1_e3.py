"""Mixtral-8x7B-Instruct-v0.1, QLoRA, 3 epochs: OpenAssistant's best replies."""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "mistralai/Mixtral-8x7B-Instruct-v0.1"
method = "qlora"
lora_dropout = 0  # PEFT adapts experts without dropout
max_epochs = 3
