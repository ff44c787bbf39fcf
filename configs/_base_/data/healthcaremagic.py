"""patients' questions to doctors (ChatDoctor)."""

_base_ = "sft"

data_path = "catalog:healthcaremagic"
dataset_map_fn = "alpaca"
SYSTEM = "You are a knowledgeable physician. Answer medical questions accurately and concisely."
evaluation_inputs = ["What are the common side effects of metformin?", "What does a raised troponin suggest?"]
