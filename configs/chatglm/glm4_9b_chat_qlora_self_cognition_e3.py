"""glm-4-9b-chat-hf, QLoRA, 3 epochs: who the model is and who made it."""

_base_ = "data/self_cognition"
pretrained_model_name_or_path = "zai-org/glm-4-9b-chat-hf"
method = "qlora"
max_epochs = 3
