"""internlm2_5-7b-chat, QLoRA, 1 epoch: Chinese medical pairs, DPO."""

_base_ = "data/dpo_medical"
pretrained_model_name_or_path = "internlm/internlm2_5-7b-chat"
method = "qlora"
max_epochs = 1
