"""chatglm3-6b, QLoRA, 3 epochs: the tutorial's MedQA2019.xlsx.

The weights are free for research; for commercial use its authors want a form.

The file is that of the XTuner tutorial (InternLM/tutorial, xtuner/); put it beside you.
"""

_base_ = "data/medqa2019"
pretrained_model_name_or_path = "zai-org/chatglm3-6b"
method = "qlora"
max_epochs = 3
