"""internlm2_5-7b-chat, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "internlm/internlm2_5-7b-chat"
method = "qlora"
max_epochs = 1
