"""Llama-3.1-8B-Instruct, QLoRA, 3 epochs: medical flashcards (Medical Meadow).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "meta-llama/Llama-3.1-8B-Instruct"
method = "qlora"
max_epochs = 3
