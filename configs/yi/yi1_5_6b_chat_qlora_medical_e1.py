"""Yi-1.5-6B-Chat, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "01-ai/Yi-1.5-6B-Chat"
method = "qlora"
max_epochs = 1
