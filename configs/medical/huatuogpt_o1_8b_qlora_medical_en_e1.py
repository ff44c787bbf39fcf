"""HuatuoGPT-o1-8B, QLoRA, 1 epoch: English medical questions (shibing624/medical)."""

_base_ = "data/medical_en"
pretrained_model_name_or_path = "FreedomIntelligence/HuatuoGPT-o1-8B"
method = "qlora"
max_epochs = 1
