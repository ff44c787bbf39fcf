"""Chinese consultations (BillGPT)."""

_base_ = "sft"

data_path = "catalog:billgpt"
SYSTEM = "你是一名专业的医生，请认真、准确地回答患者的医学问题。"
evaluation_inputs = ["我最近总是感到心慌，怎么办？", "高血压患者能同时服用布洛芬吗？"]
