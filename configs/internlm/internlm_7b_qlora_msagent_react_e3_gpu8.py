"""internlm-7b, QLoRA, 3 epochs, 8 GPUs: MSAgent-Bench as ReAct dialogues.

The data is on ModelScope; `pip install modelscope` fetches it.
"""

_base_ = "data/msagent_react"
pretrained_model_name_or_path = "internlm/internlm-7b"
method = "qlora"
batch_size = 8
accumulative_counts = 1
max_epochs = 3
