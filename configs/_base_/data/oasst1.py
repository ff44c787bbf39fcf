"""OpenAssistant's best replies."""

_base_ = "sft"

data_path = "timdettmers/openassistant-guanaco"
dataset_map_fn = "oasst1"
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
