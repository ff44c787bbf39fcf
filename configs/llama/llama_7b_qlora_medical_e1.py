"""llama-7b, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical).

Under Meta's licence of LLaMA: research only.
"""

_base_ = "data/medical"
pretrained_model_name_or_path = "huggyllama/llama-7b"
prompt_template = "default"
method = "qlora"
max_epochs = 1
