"""Llama-2-7b-hf, QLoRA, 3 epochs: Alpaca.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "meta-llama/Llama-2-7b-hf"
prompt_template = "llama2_chat"
method = "qlora"
max_epochs = 3
