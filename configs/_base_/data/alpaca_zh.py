"""Alpaca in Chinese, answered by GPT-4."""

_base_ = "sft"

data_path = "silk-road/alpaca-data-gpt4-chinese"
dataset_map_fn = "alpaca_zh"
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
