"""InternLM-Chat-7B, QLoRA on the medication questions of MedQA2019.xlsx, 3 epochs: the tutorial's medical example."""

_base_ = "sft"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "internlm/internlm-chat-7b"
method = "qlora"
data_path = "./MedQA2019.xlsx"
data_sheet = "DrugQA"
data_columns = dict(input="A", output="D")
prompt_template = "internlm_chat"
SYSTEM = (
    "You are a professional, highly experienced doctor professor. You always provide accurate, comprehensive, and "
    "detailed answers based on the patients' questions."
)
max_length = 2048
batch_size = 1
accumulative_counts = 16
max_epochs = 3
lr = 2e-4
evaluation_inputs = ["What are ketorolac eye drops?", "Can I take ibuprofen together with warfarin?"]
evaluation_freq = 500
