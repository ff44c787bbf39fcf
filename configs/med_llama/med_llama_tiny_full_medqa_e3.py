"""Demo on the embedded base model: full fine-tune, medication questions, 3 epochs. A minute on a laptop."""

_base_ = "sft"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "med-llama-tiny"
method = "full"
data_path = "medication-qa"
SYSTEM = "You are a careful pharmacist. Answer questions about medicines accurately and briefly."
max_length = 256
batch_size = 1
accumulative_counts = 1
max_epochs = 3
lr = 5e-4
use_activation_checkpointing = False
evaluation_inputs = ["What is ibuprofen used for?", "阿司匹林有哪些常见副作用？"]
evaluation_freq = 50
