"""English medical questions (shibing624/medical)."""

_base_ = "sft"

data_path = "catalog:medical_en"
dataset_map_fn = "alpaca"
SYSTEM = "You are a knowledgeable physician. Answer medical questions accurately and concisely."
evaluation_inputs = ["What are the common side effects of metformin?", "What does a raised troponin suggest?"]
