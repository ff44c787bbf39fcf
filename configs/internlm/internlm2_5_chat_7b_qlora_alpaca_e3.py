"""internlm2_5-7b-chat, QLoRA, 3 epochs: Alpaca."""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "internlm/internlm2_5-7b-chat"
method = "qlora"
max_epochs = 3
