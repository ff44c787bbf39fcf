"""HuatuoGPT-o1-8B, QLoRA, 3 epochs: medical flashcards (Medical Meadow)."""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "FreedomIntelligence/HuatuoGPT-o1-8B"
method = "qlora"
max_epochs = 3
