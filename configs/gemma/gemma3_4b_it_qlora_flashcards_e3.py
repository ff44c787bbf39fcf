"""gemma-3-4b-it, QLoRA, 3 epochs: medical flashcards (Medical Meadow).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "google/gemma-3-4b-it"
method = "qlora"
lora_target_modules = r".*language_model.*_proj"  # not the part that sees: medtune trains on text
max_epochs = 3
