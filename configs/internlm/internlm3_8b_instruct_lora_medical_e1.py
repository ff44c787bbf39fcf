"""internlm3-8b-instruct, LoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "internlm/internlm3-8b-instruct"
method = "lora"
max_epochs = 1
