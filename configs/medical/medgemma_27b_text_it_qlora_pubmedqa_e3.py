"""medgemma-27b-text-it, QLoRA, 3 epochs: PubMed abstracts and their conclusions.

Terms of the Health AI Developer Foundations.
Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/pubmedqa"
pretrained_model_name_or_path = "google/medgemma-27b-text-it"
method = "qlora"
max_epochs = 3
