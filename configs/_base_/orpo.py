"""Odds-ratio preference optimisation (full, LoRA or QLoRA) on pairs, without a reference: in place of SFT and DPO."""

from medtune.models.preference import ORPO

_base_ = "sft"

# Preference
loss_beta = 0.1  # weight of the odds ratio beside the chosen answer's cross entropy; the paper's lambda

data_path = "medication-pairs"
lr = 8e-6 if method == "full" else 5e-5
warmup_ratio = 0.1

model["type"] = ORPO
model["beta"] = loss_beta
train_dataset["kind"] = "pairs"
val_dataset["kind"] = "pairs"
