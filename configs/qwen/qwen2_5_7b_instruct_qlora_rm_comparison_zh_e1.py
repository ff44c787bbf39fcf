"""Qwen2.5-7B-Instruct, QLoRA, 1 epoch: GPT-4's comparisons in Chinese, reward."""

_base_ = "data/rm_comparison_zh"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 1
