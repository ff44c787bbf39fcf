"""Meta-Llama-3-8B-Instruct, QLoRA, 3 epochs: Alpaca.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "meta-llama/Meta-Llama-3-8B-Instruct"
method = "qlora"
max_epochs = 3
