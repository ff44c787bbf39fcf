"""internlm-20b, QLoRA, 3 epochs: Alpaca in both languages, and OpenAssistant."""

_base_ = "data/alpaca_enzh_oasst1"
pretrained_model_name_or_path = "internlm/internlm-20b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 3
