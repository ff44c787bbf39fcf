"""Mistral-7B-Instruct-v0.3, QLoRA, 3 epochs: medical flashcards (Medical Meadow)."""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "mistralai/Mistral-7B-Instruct-v0.3"
method = "qlora"
max_epochs = 3
