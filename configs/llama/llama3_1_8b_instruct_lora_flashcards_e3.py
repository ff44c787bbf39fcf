"""Llama 3.1 8B Instruct, LoRA on medical flashcards, 3 epochs."""

_base_ = "sft"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "meta-llama/Llama-3.1-8B-Instruct"
method = "lora"
data_path = "medalpaca/medical_meadow_medical_flashcards"
dataset_map_fn = "alpaca"
SYSTEM = "You are a knowledgeable physician. Answer medical questions accurately and concisely."
max_length = 2048
batch_size = 1
accumulative_counts = 16
max_epochs = 3
lr = 2e-4
evaluation_inputs = ["What are the common side effects of metformin?", "What does a raised troponin suggest?"]
evaluation_freq = 500
