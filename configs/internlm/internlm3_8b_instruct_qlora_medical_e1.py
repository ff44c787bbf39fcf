"""internlm3-8b-instruct, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "internlm/internlm3-8b-instruct"
method = "qlora"
max_epochs = 1
