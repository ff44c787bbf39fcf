"""MSAgent-Bench as ReAct dialogues.

The data is on ModelScope; `pip install modelscope` fetches it.
"""

_base_ = "sft"

data_path = "modelscope://damo/MSAgent-Bench"
dataset_map_fn = "msagent_react"
prompt_template = "default"
pack_to_max_length = False
evaluation_inputs = ["北京明天会下雨吗？", "What is the weather like in Oslo today?"]
