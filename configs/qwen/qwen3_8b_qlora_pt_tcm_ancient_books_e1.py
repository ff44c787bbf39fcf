"""Qwen3-8B, QLoRA, 1 epoch: old books of Chinese medicine, pre-training."""

_base_ = "data/pt_tcm_ancient_books"
pretrained_model_name_or_path = "Qwen/Qwen3-8B"
method = "qlora"
max_epochs = 1
