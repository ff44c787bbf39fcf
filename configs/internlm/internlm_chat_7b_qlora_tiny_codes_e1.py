"""internlm-chat-7b, QLoRA, 1 epoch: tiny-codes.

Gated: accept the terms at huggingface.co/datasets/nampdn-ai/tiny-codes, then `hf auth login`.
"""

_base_ = "data/tiny_codes"
pretrained_model_name_or_path = "internlm/internlm-chat-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 1
