"""Simple preference optimisation (full, LoRA or QLoRA) on pairs, without a reference."""

from medtune.models.preference import SimPO

_base_ = "sft"

# Preference; lr is a tenth of what supervised training takes, or less
loss_beta = 2.0  # scale of the difference of mean log-probabilities
simpo_margin = 1.0  # how far apart they should be, after scaling; the paper's gamma
label_smoothing = 0.0  # share of pairs that are labelled the wrong way round

data_path = "medication-pairs"
max_epochs = 1
lr = 1e-6 if method == "full" else 5e-6
warmup_ratio = 0.1

model["type"] = SimPO
model["beta"] = loss_beta
model["margin"] = simpo_margin
model["label_smoothing"] = label_smoothing
train_dataset["kind"] = "pairs"
val_dataset["kind"] = "pairs"
