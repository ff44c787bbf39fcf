"""Direct preference optimisation (full, LoRA or QLoRA) on pairs of a chosen and a rejected answer."""

from medtune.models.preference import DPO

_base_ = "sft"

# Preference; lr is a tenth of what supervised training takes, or less
dpo_loss_type = "sigmoid"  # hinge, ipo, robust, kto_pair, nca_pair, bco_pair, sppo_hard, exo_pair, apo_zero, apo_down
loss_beta = 0.1  # strength of the pull to the model that training began with
label_smoothing = 0.0  # share of pairs that are labelled the wrong way round: for sigmoid, robust and exo_pair
sft_weight = 0.0  # adds this times the chosen answer's cross entropy; 1 is usual where its loss must not rise

data_path = "medication-pairs"
max_epochs = 1
lr = 5e-7 if method == "full" else 5e-6
warmup_ratio = 0.1

model["type"] = DPO
model["loss_type"] = dpo_loss_type
model["beta"] = loss_beta
model["label_smoothing"] = label_smoothing
model["sft_weight"] = sft_weight
train_dataset["kind"] = "pairs"
val_dataset["kind"] = "pairs"
