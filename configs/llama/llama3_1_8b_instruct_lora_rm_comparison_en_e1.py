"""Llama-3.1-8B-Instruct, LoRA, 1 epoch: GPT-4's comparisons in English, reward.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/rm_comparison_en"
pretrained_model_name_or_path = "meta-llama/Llama-3.1-8B-Instruct"
method = "lora"
max_epochs = 1
