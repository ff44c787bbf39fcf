"""Alpaca in both languages, and OpenAssistant."""

_base_ = "sft"

data_path = [
    dict(path="tatsu-lab/alpaca", dataset_map_fn="alpaca"),
    dict(path="silk-road/alpaca-data-gpt4-chinese", dataset_map_fn="alpaca_zh"),
    dict(path="timdettmers/openassistant-guanaco", dataset_map_fn="oasst1"),
]
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
