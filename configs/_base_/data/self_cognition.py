"""who the model is and who made it."""

_base_ = "sft"

data_path = "self-cognition"
placeholders = dict(name="MedTune", author="my hospital")  # fills <NAME> and <AUTHOR> of the data: set your own
evaluation_inputs = ["你是谁？", "Who made you?"]
evaluation_freq = 10
