"""MOSS's dialogues with plugins.

Download conversations_with_tools_*.jsonl of fnlp/moss-003-sft-data into ./data, and unzip it.
"""

_base_ = "sft"

data_path = (
    "./data/conversations_with_tools_with_inner_instruction_no_text2image"
    "_train_all_random_meta0.5_0.1_0.01_moss_0709.jsonl"
)
dataset_map_fn = "moss"
prompt_template = "qwen_chat"  # a format with a place for tools
evaluation_inputs = ["一个数除以 3 余 2，除以 5 余 3，最小是多少？", "Which vitamins dissolve in fat?"]
