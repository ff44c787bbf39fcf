"""internlm-7b, QLoRA, 3 epochs: Open-Platypus."""

_base_ = "data/open_platypus"
pretrained_model_name_or_path = "internlm/internlm-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 3
