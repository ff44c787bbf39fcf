"""InternLM3 8B Instruct, QLoRA on Chinese medical questions, 1 epoch."""

_base_ = "sft"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "internlm/internlm3-8b-instruct"
method = "qlora"
data_path = "hf://datasets/shibing624/medical/finetune/train_zh_0.json"
dataset_map_fn = "alpaca"
SYSTEM = "你是一名专业的医生，请认真、准确地回答患者的医学问题。"
max_length = 2048
batch_size = 1
accumulative_counts = 16
max_epochs = 1
lr = 2e-4
evaluation_inputs = ["我最近总是感到心慌，怎么办？", "高血压患者能同时服用布洛芬吗？"]
evaluation_freq = 500
