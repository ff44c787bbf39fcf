"""OpenOrca."""

_base_ = "sft"

data_path = "Open-Orca/OpenOrca"
dataset_map_fn = "openorca"
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
evaluation_freq = 5000
