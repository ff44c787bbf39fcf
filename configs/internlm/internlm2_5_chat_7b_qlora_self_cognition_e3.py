"""internlm2_5-7b-chat, QLoRA, 3 epochs: who the model is and who made it."""

_base_ = "data/self_cognition"
pretrained_model_name_or_path = "internlm/internlm2_5-7b-chat"
method = "qlora"
max_epochs = 3
