"""Qwen3-8B, QLoRA, 3 epochs: OpenAssistant's best replies."""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 3
