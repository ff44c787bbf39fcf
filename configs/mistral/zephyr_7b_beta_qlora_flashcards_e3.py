"""zephyr-7b-beta, QLoRA, 3 epochs: medical flashcards (Medical Meadow)."""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "HuggingFaceH4/zephyr-7b-beta"
method = "qlora"
max_epochs = 3
