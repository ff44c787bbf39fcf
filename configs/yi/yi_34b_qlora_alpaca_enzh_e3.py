"""Yi-34B, QLoRA, 3 epochs: Alpaca in English and Chinese."""

_base_ = "data/alpaca_enzh"
pretrained_model_name_or_path = "01-ai/Yi-34B"
prompt_template = "default"
method = "qlora"
max_epochs = 3
