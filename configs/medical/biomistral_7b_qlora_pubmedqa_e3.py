"""BioMistral-7B, QLoRA, 3 epochs: PubMed abstracts and their conclusions."""

_base_ = "data/pubmedqa"
pretrained_model_name_or_path = "BioMistral/BioMistral-7B"
prompt_template = "mistral"
method = "qlora"
max_epochs = 3
