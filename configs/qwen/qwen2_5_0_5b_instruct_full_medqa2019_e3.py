"""Qwen2.5-0.5B-Instruct, full fine-tune, 3 epochs: the tutorial's MedQA2019.xlsx.

The file is that of the XTuner tutorial (InternLM/tutorial, xtuner/); put it beside you.
"""

_base_ = "data/medqa2019"
pretrained_model_name_or_path = "Qwen/Qwen2.5-0.5B-Instruct"
method = "full"
lr = 2e-5
max_epochs = 3
