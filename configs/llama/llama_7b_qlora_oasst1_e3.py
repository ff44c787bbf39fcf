"""llama-7b, QLoRA, 3 epochs: OpenAssistant's best replies.

Under Meta's licence of LLaMA: research only.
"""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "huggyllama/llama-7b"
prompt_template = "default"
method = "qlora"
max_epochs = 3
