"""chatglm3-6b-base, QLoRA, 3 epochs: OpenAssistant's best replies.

The weights are free for research; for commercial use its authors want a form.
"""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "zai-org/chatglm3-6b-base"
prompt_template = "chatglm3"
method = "qlora"
max_epochs = 3
