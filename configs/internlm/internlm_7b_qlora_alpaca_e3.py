"""internlm-7b, QLoRA, 3 epochs: Alpaca."""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "internlm/internlm-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 3
