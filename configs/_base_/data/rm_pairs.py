"""the embedded pairs of answers, reward."""

_base_ = "rm"

data_path = "answer-pairs"
