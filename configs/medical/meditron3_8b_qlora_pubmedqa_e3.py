"""Meditron3-8B, QLoRA, 3 epochs: PubMed abstracts and their conclusions."""

_base_ = "data/pubmedqa"
pretrained_model_name_or_path = "OpenMeditron/Meditron3-8B"
prompt_template = "llama3_chat"
method = "qlora"
max_epochs = 3
