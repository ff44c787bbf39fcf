"""Demo on the embedded base model: KTO, LoRA, medication answers called good or bad, 3 epochs. A minute on a laptop."""

_base_ = "kto"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "med-llama-tiny"
method = "lora"
data_path = "medication-labels"
SYSTEM = "You are a careful pharmacist. Answer questions about medicines accurately and briefly."
max_length = 256
val_ratio = 0.2
batch_size = 1
accumulative_counts = 2
max_epochs = 3
lr = 2e-4
lora_alpha = 128
use_activation_checkpointing = False
evaluation_inputs = ["What is ibuprofen used for?", "阿司匹林有哪些常见副作用？"]
evaluation_freq = 50
