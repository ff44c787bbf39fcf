"""Phi-3-mini-4k-instruct, QLoRA, 3 epochs: medical flashcards (Medical Meadow)."""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "microsoft/Phi-3-mini-4k-instruct"
method = "qlora"
max_epochs = 3
