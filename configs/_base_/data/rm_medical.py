"""Chinese medical pairs, reward."""

_base_ = "rm"

data_path = "catalog:rm_medical"
dataset_map_fn = "question_preference"
