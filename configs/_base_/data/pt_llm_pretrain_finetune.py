"""LLM-Pretrain-FineTune's texts, pre-training."""

_base_ = "pt"

data_path = "catalog:pt_llm_pretrain_finetune"
