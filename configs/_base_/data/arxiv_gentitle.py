"""titles for abstracts of arXiv.

Make ./data/arxiv_data.json from Kaggle's Cornell-University/arxiv: a list of objects with an abstract and a title.
"""

_base_ = "sft"

data_path = "./data/arxiv_data.json"
data_columns = dict(input="abstract", output="title")
SYSTEM = "You are an experienced researcher. Read the abstract and propose a precise title for it."
evaluation_inputs = [
    "We compare low-rank adapters with full fine-tuning on six clinical corpora and find them equal within noise."
]
