"""patients' questions to doctors (iCliniq)."""

_base_ = "sft"

data_path = "catalog:icliniq"
SYSTEM = "You are a knowledgeable physician. Answer medical questions accurately and concisely."
evaluation_inputs = ["What are the common side effects of metformin?", "What does a raised troponin suggest?"]
