"""internlm-chat-7b, QLoRA, 3 epochs: OpenAssistant's best replies."""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "internlm/internlm-chat-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 3
