"""Llama-3.1-8B-Instruct, QLoRA, 3 epochs: PubMed abstracts and their conclusions.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/pubmedqa"
pretrained_model_name_or_path = "meta-llama/Llama-3.1-8B-Instruct"
method = "qlora"
max_epochs = 3
