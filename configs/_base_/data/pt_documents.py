"""the embedded medical documents, pre-training."""

_base_ = "pt"

data_path = "medical-documents"
