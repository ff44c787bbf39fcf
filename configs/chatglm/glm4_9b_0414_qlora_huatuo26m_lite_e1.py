"""GLM-4-9B-0414, QLoRA, 1 epoch: Chinese medical questions (Huatuo26M-Lite)."""

_base_ = "data/huatuo26m_lite"
pretrained_model_name_or_path = "zai-org/GLM-4-9B-0414"
method = "qlora"
max_epochs = 1
