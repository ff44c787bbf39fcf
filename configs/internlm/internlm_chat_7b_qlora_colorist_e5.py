"""internlm-chat-7b, QLoRA, 5 epochs: colours for a description."""

_base_ = "data/colorist"
pretrained_model_name_or_path = "internlm/internlm-chat-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 5
