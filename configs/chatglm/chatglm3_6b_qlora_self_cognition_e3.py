"""chatglm3-6b, QLoRA, 3 epochs: who the model is and who made it.

The weights are free for research; for commercial use its authors want a form.
"""

_base_ = "data/self_cognition"
pretrained_model_name_or_path = "zai-org/chatglm3-6b"
method = "qlora"
max_epochs = 3
