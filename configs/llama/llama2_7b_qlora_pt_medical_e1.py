"""Llama-2-7b-hf, QLoRA, 1 epoch: a Chinese medical encyclopedia, pre-training.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/pt_medical"
pretrained_model_name_or_path = "meta-llama/Llama-2-7b-hf"
method = "qlora"
max_epochs = 1
