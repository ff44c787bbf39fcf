"""internlm-7b, full fine-tune, 3 epochs: Alpaca in both languages, and OpenAssistant."""

_base_ = "data/alpaca_enzh_oasst1"
pretrained_model_name_or_path = "internlm/internlm-7b"
prompt_template = "internlm_chat"
method = "full"
lr = 2e-5
max_epochs = 3
