"""Chinese medical pairs, SimPO."""

_base_ = "simpo"

data_path = "catalog:rm_medical"
dataset_map_fn = "question_preference"
SYSTEM = "你是一名专业的医生，请认真、准确地回答患者的医学问题。"
evaluation_inputs = ["我最近总是感到心慌，怎么办？", "高血压患者能同时服用布洛芬吗？"]
