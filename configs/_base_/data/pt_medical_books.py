"""Chinese medical books, pre-training."""

_base_ = "pt"

data_path = "catalog:pt_medical_books"
