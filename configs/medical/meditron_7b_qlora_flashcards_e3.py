"""meditron-7b, QLoRA, 3 epochs: medical flashcards (Medical Meadow).

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/flashcards"
pretrained_model_name_or_path = "epfl-llm/meditron-7b"
prompt_template = "default"
method = "qlora"
max_epochs = 3
