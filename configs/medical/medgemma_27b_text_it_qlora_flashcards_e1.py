"""medgemma-27b-text-it, QLoRA, 1 epoch: medical flashcards (Medical Meadow).

Terms of the Health AI Developer Foundations.
Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "google/medgemma-27b-text-it"
method = "qlora"
max_epochs = 1
