"""tiny-codes.

Gated: accept the terms at huggingface.co/datasets/nampdn-ai/tiny-codes, then `hf auth login`.
"""

_base_ = "sft"

data_path = "nampdn-ai/tiny-codes"
dataset_map_fn = "prompt_response"
SYSTEM = "You are an experienced programmer. Answer with code that does what is described, and no more."
evaluation_inputs = ["写一个 Python 函数，计算体重指数（BMI）。", "Write a Python function that parses an ICD-10 code."]
