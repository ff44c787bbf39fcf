"""zephyr-7b-beta, QLoRA, 3 epochs: OpenAssistant's best replies."""

_base_ = "data/oasst1"
pretrained_model_name_or_path = "HuggingFaceH4/zephyr-7b-beta"
method = "qlora"
max_epochs = 3
