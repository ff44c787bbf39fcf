"""Code Alpaca."""

_base_ = "sft"

data_path = "HuggingFaceH4/CodeAlpaca_20K"
dataset_map_fn = "prompt_response"
SYSTEM = "You are an experienced programmer. Answer with code that does what is described, and no more."
evaluation_inputs = ["写一个 Python 函数，计算体重指数（BMI）。", "Write a Python function that parses an ICD-10 code."]
evaluation_freq = 100
