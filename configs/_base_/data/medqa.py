"""the embedded medication questions."""

_base_ = "sft"

data_path = "medication-qa"
SYSTEM = "You are a careful pharmacist. Answer questions about medicines accurately and briefly."
evaluation_inputs = ["What is ibuprofen used for?", "阿司匹林有哪些常见副作用？"]
