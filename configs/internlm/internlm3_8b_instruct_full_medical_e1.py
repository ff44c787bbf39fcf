"""internlm3-8b-instruct, full fine-tune, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "internlm/internlm3-8b-instruct"
method = "full"
lr = 2e-5
max_epochs = 1
