"""pages of zysj.com.cn, pre-training."""

_base_ = "pt"

data_path = "catalog:pt_zysj"
data_documents = "file"
