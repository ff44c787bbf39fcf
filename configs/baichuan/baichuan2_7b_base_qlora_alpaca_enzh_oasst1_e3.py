"""Baichuan2-7B-Base, QLoRA, 3 epochs: Alpaca in both languages, and OpenAssistant.

The weights are free for research; for commercial use its authors want a form.
"""

_base_ = "data/alpaca_enzh_oasst1"
pretrained_model_name_or_path = "baichuan-inc/Baichuan2-7B-Base"
prompt_template = "baichuan2_chat"
method = "qlora"
max_epochs = 3
