"""gemma-3-1b-it, LoRA, 3 epochs: the tutorial's MedQA2019.xlsx.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.

The file is that of the XTuner tutorial (InternLM/tutorial, xtuner/); put it beside you.
"""

_base_ = "data/medqa2019"
pretrained_model_name_or_path = "google/gemma-3-1b-it"
method = "lora"
max_epochs = 3
