"""a Chinese medical encyclopedia, pre-training."""

_base_ = "pt"

data_path = "catalog:pt_medical"
