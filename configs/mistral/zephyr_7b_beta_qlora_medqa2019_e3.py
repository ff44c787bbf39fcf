"""zephyr-7b-beta, QLoRA, 3 epochs: the tutorial's MedQA2019.xlsx.

The file is that of the XTuner tutorial (InternLM/tutorial, xtuner/); put it beside you.
"""

_base_ = "data/medqa2019"
pretrained_model_name_or_path = "HuggingFaceH4/zephyr-7b-beta"
method = "qlora"
max_epochs = 3
