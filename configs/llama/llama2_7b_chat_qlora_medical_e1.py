"""Llama-2-7b-chat-hf, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/medical"
pretrained_model_name_or_path = "meta-llama/Llama-2-7b-chat-hf"
method = "qlora"
max_epochs = 1
