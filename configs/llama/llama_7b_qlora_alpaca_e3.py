"""llama-7b, QLoRA, 3 epochs: Alpaca.

Under Meta's licence of LLaMA: research only.
"""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "huggyllama/llama-7b"
prompt_template = "default"
method = "qlora"
max_epochs = 3
