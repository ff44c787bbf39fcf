"""chatglm3-6b-base, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical).

The weights are free for research; for commercial use its authors want a form.
"""

_base_ = "data/medical"
pretrained_model_name_or_path = "zai-org/chatglm3-6b-base"
prompt_template = "chatglm3"
method = "qlora"
max_epochs = 1
