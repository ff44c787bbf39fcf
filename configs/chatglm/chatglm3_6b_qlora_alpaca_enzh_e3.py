"""chatglm3-6b, QLoRA, 3 epochs: Alpaca in English and Chinese.

The weights are free for research; for commercial use its authors want a form.
"""

_base_ = "data/alpaca_enzh"
pretrained_model_name_or_path = "zai-org/chatglm3-6b"
method = "qlora"
max_epochs = 3
