"""internlm-chat-7b, QLoRA, 1 epoch: OpenOrca."""

_base_ = "data/openorca"
pretrained_model_name_or_path = "internlm/internlm-chat-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 1
