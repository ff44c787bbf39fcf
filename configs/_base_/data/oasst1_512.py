"""OpenAssistant's best replies, unpacked."""

_base_ = "data/oasst1"

max_length = 512
pack_to_max_length = False
