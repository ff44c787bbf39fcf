"""internlm-7b, QLoRA, 1 epoch: MOSS's dialogues with plugins.

Download conversations_with_tools_*.jsonl of fnlp/moss-003-sft-data into ./data, and unzip it.
"""

_base_ = "data/moss_sft_plugins"
pretrained_model_name_or_path = "internlm/internlm-7b"
method = "qlora"
max_epochs = 1
