"""internlm-7b, QLoRA, 1 epoch: MOSS's dialogues, with and without plugins.

Download both files of fnlp/moss-003-sft-data into ./data, and unzip them.
"""

_base_ = "data/moss_sft_all"
pretrained_model_name_or_path = "internlm/internlm-7b"
method = "qlora"
max_epochs = 1
