"""Llama-3.1-8B-Instruct, QLoRA, 1 epoch: patients' questions to doctors (ChatDoctor).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/healthcaremagic"
pretrained_model_name_or_path = "meta-llama/Llama-3.1-8B-Instruct"
method = "qlora"
max_epochs = 1
