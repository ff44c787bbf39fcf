"""Demo on the embedded base model: continued pre-training, LoRA, medical documents, 3 epochs. A minute on a laptop."""

_base_ = "pt"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "med-llama-tiny"
method = "lora"
data_path = "medical-documents"
block_size = 256
document_end = "<|endoftext|>"  # which ended the documents that this model was trained on
val_ratio = 0.2
batch_size = 1
accumulative_counts = 2
max_epochs = 3
lr = 6e-4
lora_alpha = 128
use_activation_checkpointing = False
evaluation_inputs = ["Paracetamol relieves", "高血压是指"]
evaluation_freq = 50
evaluation_max_new_tokens = 32
