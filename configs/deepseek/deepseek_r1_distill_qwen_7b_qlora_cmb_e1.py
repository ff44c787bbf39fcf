"""DeepSeek-R1-Distill-Qwen-7B, QLoRA, 1 epoch: Chinese medical examinations (CMB-Exam)."""

_base_ = "data/cmb"
pretrained_model_name_or_path = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
method = "qlora"
max_epochs = 1
