"""Llama-2-7b-chat-hf, QLoRA, 3 epochs: the tutorial's MedQA2019.xlsx.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.

The file is that of the XTuner tutorial (InternLM/tutorial, xtuner/); put it beside you.
"""

_base_ = "data/medqa2019"
pretrained_model_name_or_path = "meta-llama/Llama-2-7b-chat-hf"
method = "qlora"
max_epochs = 3
