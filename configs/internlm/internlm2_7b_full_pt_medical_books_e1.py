"""internlm2-7b, full fine-tune, 1 epoch: Chinese medical books, pre-training."""

_base_ = "data/pt_medical_books"
pretrained_model_name_or_path = "internlm/internlm2-7b"
method = "full"
lr = 2e-5
max_epochs = 1
