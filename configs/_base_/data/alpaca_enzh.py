"""Alpaca in English and Chinese."""

_base_ = "sft"

data_path = [
    dict(path="tatsu-lab/alpaca", dataset_map_fn="alpaca"),
    dict(path="silk-road/alpaca-data-gpt4-chinese", dataset_map_fn="alpaca_zh"),
]
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
