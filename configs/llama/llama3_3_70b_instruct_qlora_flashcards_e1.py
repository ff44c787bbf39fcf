"""Llama-3.3-70B-Instruct, QLoRA, 1 epoch: medical flashcards (Medical Meadow).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "meta-llama/Llama-3.3-70B-Instruct"
method = "qlora"
max_epochs = 1
