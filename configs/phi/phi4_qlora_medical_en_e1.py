"""phi-4, QLoRA, 1 epoch: English medical questions (shibing624/medical)."""

_base_ = "data/medical_en"
pretrained_model_name_or_path = "microsoft/phi-4"
method = "qlora"
max_epochs = 1
