"""Llama-2-7b-hf, QLoRA, 3 epochs, 8 GPUs: MSAgent-Bench as ReAct dialogues.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.

The data is on ModelScope; `pip install modelscope` fetches it.
"""

_base_ = "data/msagent_react"
pretrained_model_name_or_path = "meta-llama/Llama-2-7b-hf"
method = "qlora"
accumulative_counts = 2
max_epochs = 3
