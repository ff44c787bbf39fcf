"""the embedded pairs of answers, SimPO."""

_base_ = "simpo"

data_path = "medication-pairs"
