"""Llama-2-7b-hf, full fine-tune, 1 epoch: WizardLM's evolved instructions.

Gated: accept the licence on its page at huggingface.co, then `hf auth login`.
"""

_base_ = "data/wizardlm"
pretrained_model_name_or_path = "meta-llama/Llama-2-7b-hf"
prompt_template = "llama2_chat"
method = "full"
lr = 2e-5
max_epochs = 1
