"""Llama-2-7b-hf, QLoRA, 1 epoch: MOSS's dialogues, with and without plugins.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.

Download both files of fnlp/moss-003-sft-data into ./data, and unzip them.
"""

_base_ = "data/moss_sft_all"
pretrained_model_name_or_path = "meta-llama/Llama-2-7b-hf"
method = "qlora"
max_epochs = 1
