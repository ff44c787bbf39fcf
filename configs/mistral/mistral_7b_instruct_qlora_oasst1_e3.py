"""Mistral-7B-Instruct-v0.3, QLoRA, 3 epochs: OpenAssistant's best replies."""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "mistralai/Mistral-7B-Instruct-v0.3"
method = "qlora"
max_epochs = 3
