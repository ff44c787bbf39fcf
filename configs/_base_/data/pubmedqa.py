"""PubMed abstracts and their conclusions."""

_base_ = "sft"

data_path = "catalog:pubmedqa"
dataset_map_fn = "pubmedqa"
SYSTEM = "You are a knowledgeable physician. Answer medical questions accurately and concisely."
evaluation_inputs = ["What are the common side effects of metformin?", "What does a raised troponin suggest?"]
