"""Baichuan2-7B-Chat, QLoRA, 3 epochs: Alpaca.

The weights are free for research; for commercial use its authors want a form.
"""

_base_ = "data/alpaca"
pretrained_model_name_or_path = "baichuan-inc/Baichuan2-7B-Chat"
prompt_template = dict(SYSTEM="{system}", INSTRUCTION="<reserved_106>{input}<reserved_107>")
method = "qlora"
max_epochs = 3
