"""Llama-2-70b-hf, QLoRA, 1 epoch: Open-Platypus.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/open_platypus"
pretrained_model_name_or_path = "meta-llama/Llama-2-70b-hf"
prompt_template = "llama2_chat"
method = "qlora"
max_epochs = 1
