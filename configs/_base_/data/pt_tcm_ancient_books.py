"""old books of Chinese medicine, pre-training."""

_base_ = "pt"

data_path = "catalog:pt_tcm_ancient_books"
data_documents = "file"
