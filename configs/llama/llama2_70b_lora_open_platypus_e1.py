"""Llama-2-70b-hf, LoRA, 1 epoch: Open-Platypus.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/open_platypus"
pretrained_model_name_or_path = "meta-llama/Llama-2-70b-hf"
prompt_template = "llama2_chat"
method = "lora"
max_epochs = 1
