"""MedicalGPT's pairs, reward."""

_base_ = "rm"

data_path = "catalog:rm_medicalgpt"
dataset_map_fn = "sharegpt_preference"
