"""Qwen2.5-7B-Instruct, QLoRA, 1 epoch: Chinese medical tasks (LLM-Pretrain-FineTune)."""

_base_ = "data/llm_pretrain_finetune_sft"
pretrained_model_name_or_path = "Qwen/Qwen2.5-7B-Instruct"
method = "qlora"
max_epochs = 1
