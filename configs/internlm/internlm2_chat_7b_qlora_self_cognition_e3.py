"""internlm2-chat-7b, QLoRA, 3 epochs: who the model is and who made it."""

_base_ = "data/self_cognition"
pretrained_model_name_or_path = "internlm/internlm2-chat-7b"
method = "qlora"
max_epochs = 3
