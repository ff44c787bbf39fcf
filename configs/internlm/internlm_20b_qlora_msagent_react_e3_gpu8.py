"""internlm-20b, QLoRA, 3 epochs, 8 GPUs: MSAgent-Bench as ReAct dialogues.

The data is on ModelScope; `pip install modelscope` fetches it.
"""

_base_ = "data/msagent_react"
pretrained_model_name_or_path = "internlm/internlm-20b"
method = "qlora"
accumulative_counts = 2
max_epochs = 3
