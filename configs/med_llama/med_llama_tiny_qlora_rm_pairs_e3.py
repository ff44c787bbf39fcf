"""Demo on the embedded base model: reward model, QLoRA (4 bits), pairs of answers, 3 epochs. A minute on a laptop."""

_base_ = "rm"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "med-llama-tiny"
method = "qlora"
data_path = "answer-pairs"
max_length = 256
val_ratio = 0.2
batch_size = 1
accumulative_counts = 2
max_epochs = 3
lr = 1e-3
lora_alpha = 128
use_activation_checkpointing = False
