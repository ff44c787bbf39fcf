"""Llama-3.2-3B-Instruct, QLoRA, 3 epochs: a small part of Medical Meadow (medAlpaca).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/medalpaca"
pretrained_model_name_or_path = "meta-llama/Llama-3.2-3B-Instruct"
method = "qlora"
max_epochs = 3
