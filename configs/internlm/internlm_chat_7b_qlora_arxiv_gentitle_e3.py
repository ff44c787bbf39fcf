"""internlm-chat-7b, QLoRA, 3 epochs: titles for abstracts of arXiv.

Make ./data/arxiv_data.json from Kaggle's Cornell-University/arxiv: a list of objects with an abstract and a title.
"""

_base_ = "data/arxiv_gentitle"
pretrained_model_name_or_path = "internlm/internlm-chat-7b"
prompt_template = "internlm_chat"
method = "qlora"
max_epochs = 3
