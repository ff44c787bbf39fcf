"""Reward model (full, LoRA or QLoRA) from pairs of answers: a score that is higher for the better one."""

from medtune.engine.hooks import DatasetInfoHook, LossPlotHook, ProgressBarHook
from medtune.models.reward import RewardModel

_base_ = "sft"

# Reward
rm_loss_type = "ranking"  # or focal, which counts pairs little that are told apart already
rm_margin = 0.0  # how far apart the two scores should be
rm_centre = 0.0  # weight of the squared sum of a pair's scores, which keeps scores about 0; 0.01 is usual

data_path = "answer-pairs"
max_length = 1024
max_epochs = 1
lr = 2e-5

custom_hooks = [dict(type=DatasetInfoHook), dict(type=ProgressBarHook), dict(type=LossPlotHook)]  # it answers nothing

model["type"] = RewardModel
model["llm"]["head"] = "score"
model["tokenizer"] = tokenizer
model["loss_type"] = rm_loss_type
model["margin"] = rm_margin
model["centre"] = rm_centre
train_dataset["kind"] = "pairs"
val_dataset["kind"] = "pairs"
