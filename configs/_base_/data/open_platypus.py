"""Open-Platypus."""

_base_ = "sft"

data_path = "garage-bAInd/Open-Platypus"
dataset_map_fn = "alpaca"
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
