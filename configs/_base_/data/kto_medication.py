"""the embedded rated answers, KTO."""

_base_ = "kto"

data_path = "medication-labels"
