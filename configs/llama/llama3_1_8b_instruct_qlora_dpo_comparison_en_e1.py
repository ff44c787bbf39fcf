"""Llama-3.1-8B-Instruct, QLoRA, 1 epoch: GPT-4's comparisons in English, DPO.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/dpo_comparison_en"
pretrained_model_name_or_path = "meta-llama/Llama-3.1-8B-Instruct"
method = "qlora"
max_epochs = 1
