"""InternLM-Chat-7B, QLoRA on OpenAssistant's best replies, 3 epochs."""

_base_ = "sft"

# PART 1  Settings (`medtune copy-cfg NAME FOLDER --expand` shows all of them)
pretrained_model_name_or_path = "internlm/internlm-chat-7b"
method = "qlora"
data_path = "timdettmers/openassistant-guanaco"
dataset_map_fn = "oasst1"
prompt_template = "internlm_chat"
max_length = 2048
batch_size = 1
accumulative_counts = 16
max_epochs = 3
lr = 2e-4
evaluation_inputs = ["怎样才能睡得更好？请给三条建议。", "Why does bread rise? Explain it to a child."]
evaluation_freq = 500
