"""GPT-4's comparisons in English, reward."""

_base_ = "rm"

data_path = "catalog:rm_comparison_en"
dataset_map_fn = "ranked"
