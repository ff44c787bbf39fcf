"""Stack Exchange, the best answers."""

_base_ = "sft"

data_path = "ArmelR/stack-exchange-instruction"
max_train_samples = 20000
dataset_map_fn = "stack_exchange"
SYSTEM = "You are an experienced programmer. Answer with code that does what is described, and no more."
evaluation_inputs = ["写一个 Python 函数，计算体重指数（BMI）。", "Write a Python function that parses an ICD-10 code."]
