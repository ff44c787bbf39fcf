"""gemma-3-1b-it, QLoRA, 3 epochs: medical flashcards (Medical Meadow).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "google/gemma-3-1b-it"
method = "qlora"
max_epochs = 3
