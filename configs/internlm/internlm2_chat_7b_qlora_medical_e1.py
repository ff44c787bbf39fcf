"""internlm2-chat-7b, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "internlm/internlm2-chat-7b"
method = "qlora"
max_epochs = 1
