"""the embedded pairs of answers, DPO."""

_base_ = "dpo"

data_path = "medication-pairs"
