"""internlm-7b, QLoRA, 3 epochs: OpenAssistant's best replies, unpacked."""

_base_ = "data/oasst1_512"
pretrained_model_name_or_path = "internlm/internlm-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 3
