"""internlm-7b, QLoRA, 3 epochs: Chinese questions of law.

Download the two json files of LiuHC0428/LAW-GPT into ./data.
"""

_base_ = "data/lawyer"
pretrained_model_name_or_path = "internlm/internlm-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 3
