"""Zhongjing's pairs, reward."""

_base_ = "rm"

data_path = "catalog:rm_zhongjing"
dataset_map_fn = "ranked"
