"""GPT-4's comparisons in Chinese, DPO."""

_base_ = "dpo"

data_path = "catalog:rm_comparison_zh"
dataset_map_fn = "ranked"
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
