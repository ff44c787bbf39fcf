"""WizardLM's evolved instructions."""

_base_ = "sft"

data_path = "WizardLM/WizardLM_evol_instruct_V2_196k"
dataset_map_fn = "wizardlm"
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
