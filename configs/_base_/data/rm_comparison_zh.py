"""GPT-4's comparisons in Chinese, reward."""

_base_ = "rm"

data_path = "catalog:rm_comparison_zh"
dataset_map_fn = "ranked"
