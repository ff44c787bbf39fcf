"""GLM-4-9B-0414, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "zai-org/GLM-4-9B-0414"
method = "qlora"
max_epochs = 1
