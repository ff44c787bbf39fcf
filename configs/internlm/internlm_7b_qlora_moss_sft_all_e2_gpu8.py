"""internlm-7b, QLoRA, 2 epochs, 8 GPUs: MOSS's dialogues, with and without plugins.

Download both files of fnlp/moss-003-sft-data into ./data, and unzip them.
"""

_base_ = "data/moss_sft_all"
pretrained_model_name_or_path = "internlm/internlm-7b"
method = "qlora"
batch_size = 8
accumulative_counts = 1
max_epochs = 2
