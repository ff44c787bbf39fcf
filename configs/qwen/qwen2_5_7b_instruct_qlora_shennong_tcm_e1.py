"""Qwen2.5-7B-Instruct, QLoRA, 1 epoch: traditional Chinese medicine (ShenNong_TCM)."""

_base_ = "data/shennong_tcm"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 1
