"""Kahneman-Tversky optimisation (full, LoRA or QLoRA) on answers that are labelled good or bad, each alone."""

from medtune.models.kto import KTO

_base_ = "sft"

# Preference; lr is a tenth of what supervised training takes, or less
loss_beta = 0.1  # strength of the pull to the model that training began with
desirable_weight = 1.0  # of good answers; weight times number should be about the same for both
undesirable_weight = 1.0  # of bad ones

data_path = "medication-labels"
max_epochs = 1
lr = 5e-7 if method == "full" else 5e-6
warmup_ratio = 0.1

model["type"] = KTO
model["beta"] = loss_beta
model["desirable_weight"] = desirable_weight
model["undesirable_weight"] = undesirable_weight
train_dataset["kind"] = "labels"
val_dataset["kind"] = "labels"
