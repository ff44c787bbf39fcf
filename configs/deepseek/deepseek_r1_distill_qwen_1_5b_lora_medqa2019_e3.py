"""DeepSeek-R1-Distill-Qwen-1.5B, LoRA, 3 epochs: the tutorial's MedQA2019.xlsx.

The file is that of the XTuner tutorial (InternLM/tutorial, xtuner/); put it beside you.
"""

_base_ = "data/medqa2019"
pretrained_model_name_or_path = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
method = "lora"
max_epochs = 3
