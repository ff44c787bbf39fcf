"""the embedded pairs of answers, ORPO."""

_base_ = "orpo"

data_path = "medication-pairs"
