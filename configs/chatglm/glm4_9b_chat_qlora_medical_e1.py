"""glm-4-9b-chat-hf, QLoRA, 1 epoch: Chinese medical questions (shibing624/medical)."""

_base_ = "data/medical"
pretrained_model_name_or_path = "zai-org/glm-4-9b-chat-hf"
method = "qlora"
max_epochs = 1
