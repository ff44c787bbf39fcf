"""internlm3-8b-instruct, QLoRA, 3 epochs: OpenAssistant's best replies."""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "internlm/internlm3-8b-instruct"
method = "qlora"
max_epochs = 3
