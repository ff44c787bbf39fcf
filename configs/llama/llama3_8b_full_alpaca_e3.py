"""Meta-Llama-3-8B, full fine-tune, 3 epochs: Alpaca.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "meta-llama/Meta-Llama-3-8B"
prompt_template = "llama3_chat"
method = "full"
lr = 2e-5
max_epochs = 3
