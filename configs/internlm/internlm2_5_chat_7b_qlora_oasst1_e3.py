"""internlm2_5-7b-chat, QLoRA, 3 epochs: OpenAssistant's best replies."""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "internlm/internlm2_5-7b-chat"
method = "qlora"
max_epochs = 3
