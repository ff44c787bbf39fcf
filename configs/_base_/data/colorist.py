"""colours for a description."""

_base_ = "sft"

data_path = "burkelibbey/colors"
data_columns = dict(input="description", output="color")
SYSTEM = "You are a colour designer. Answer the description you are given with a colour that fits it, as #RRGGBB."
evaluation_inputs = ["一种平静、微微发灰的浅蓝色，像清晨的薄雾。", "The green of an operating theatre."]
evaluation_freq = 200
