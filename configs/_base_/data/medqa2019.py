"""the tutorial's MedQA2019.xlsx.

The file is that of the XTuner tutorial (InternLM/tutorial, xtuner/); put it beside you.
"""

_base_ = "sft"

data_path = "./MedQA2019.xlsx"
data_sheet = "DrugQA"
data_columns = dict(input="A", output="D")
SYSTEM = (
    "You are a professional, highly experienced doctor professor. You always provide accurate, comprehensive, and "
    "detailed answers based on the patients' questions."
)
evaluation_inputs = ["What are ketorolac eye drops?", "Can I take ibuprofen together with warfarin?"]
