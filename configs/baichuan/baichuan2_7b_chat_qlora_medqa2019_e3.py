"""Baichuan2-7B-Chat, QLoRA, 3 epochs: the tutorial's MedQA2019.xlsx.

The weights are free for research; for commercial use its authors want a form.

The file is that of the XTuner tutorial (InternLM/tutorial, xtuner/); put it beside you.
"""

_base_ = "data/medqa2019"
pretrained_model_name_or_path = "baichuan-inc/Baichuan2-7B-Chat"
prompt_template = dict(SYSTEM="{system}", INSTRUCTION="<reserved_106>{input}<reserved_107>")
method = "qlora"
max_epochs = 3
