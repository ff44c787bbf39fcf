"""starcoder, QLoRA, 1 epoch: Stack Exchange, the best answers.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/stack_exchange"
pretrained_model_name_or_path = "bigcode/starcoder"
prompt_template = "default"
method = "qlora"
max_epochs = 1
