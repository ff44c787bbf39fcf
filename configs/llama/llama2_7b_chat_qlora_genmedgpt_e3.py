"""Llama-2-7b-chat-hf, QLoRA, 3 epochs: consultations made by ChatGPT (GenMedGPT-5k).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/genmedgpt"
pretrained_model_name_or_path = "meta-llama/Llama-2-7b-chat-hf"
method = "qlora"
max_epochs = 3
