"""Chinese questions of law.

Download the two json files of LiuHC0428/LAW-GPT into ./data.
"""

_base_ = "sft"

data_path = [
    dict(path="./data/CrimeKgAssitant清洗后_52k.json", dataset_map_fn="default"),
    dict(path="./data/训练数据_带法律依据_92k.json", dataset_map_fn="question_answer"),
]
SYSTEM = "你是一名熟悉中国法律的专业律师，请针对用户的问题给出准确并有法律依据的解答。"
evaluation_inputs = ["请问离婚需要准备什么材料？", "销售假药会受到什么处罚？"]
