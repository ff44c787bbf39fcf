"""InternLM-7B, QLoRA on MSAgent-Bench as ReAct dialogues, 3 epochs, for 8 GPUs.

The data is on modelscope.cn: download damo/MSAgent-Bench and set data_path to its folder.
"""

_base_ = "sft"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "internlm/internlm-7b"
method = "qlora"
data_path = "damo/MSAgent-Bench"
dataset_map_fn = "msagent_react"
prompt_template = "default"
max_length = 2048
batch_size = 8
accumulative_counts = 1
max_epochs = 3
lr = 2e-4
evaluation_inputs = ["北京明天会下雨吗？", "What is the weather like in Oslo today?"]
evaluation_freq = 500
