"""internlm-chat-7b, QLoRA, 3 epochs: Alpaca in English and Chinese."""

_base_ = "data/alpaca_enzh"
pretrained_model_name_or_path = "internlm/internlm-chat-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 3
