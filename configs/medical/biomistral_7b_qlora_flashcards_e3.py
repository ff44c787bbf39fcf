"""BioMistral-7B, QLoRA, 3 epochs: medical flashcards (Medical Meadow)."""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "BioMistral/BioMistral-7B"
prompt_template = "mistral"
method = "qlora"
max_epochs = 3
