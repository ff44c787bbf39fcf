"""consultations made by ChatGPT (GenMedGPT-5k)."""

_base_ = "sft"

data_path = "catalog:genmedgpt"
dataset_map_fn = "alpaca"
SYSTEM = "You are a knowledgeable physician. Answer medical questions accurately and concisely."
evaluation_inputs = ["What are the common side effects of metformin?", "What does a raised troponin suggest?"]
