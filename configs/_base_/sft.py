"""Supervised fine-tuning (full, LoRA or QLoRA) in five parts. Every other SFT config sets names of PART 1."""

from medtune.configs._base_ import parts
from peft import LoraConfig

from medtune.data.mix import read_sources
from medtune.data.pipeline import build_dataset, step_dataloader
from medtune.engine.chat_hook import EvaluateChatHook
from medtune.engine.hooks import CheckpointHook, DatasetInfoHook, LoggerHook, LossPlotHook, ProgressBarHook
from medtune.engine.loops import TrainLoop
from medtune.engine.optim import StepOptimWrapper
from medtune.engine.optimizers import make_optimizer
from medtune.engine.plot import scalar_backends
from medtune.engine.schedules import warmup_schedule
from medtune.engine.validation import ValidationHook
from medtune.models.load import load_llm, load_tokenizer
from medtune.models.sft import SupervisedFinetune

#######################################################################
#                          PART 1  Settings                           #
#######################################################################
# Model
pretrained_model_name_or_path = "med-llama-tiny"  # a folder, a hub id, or the embedded med-llama-tiny
tokenizer_name_or_path = None  # None: the model's own
trust_remote_code = False  # True runs code from the model's repository
model_revision = None  # commit, tag or branch of a hub id
method = "lora"  # full, lora or qlora
quantization_bits = 4  # of the frozen weights under qlora: 4 (NF4, double quantised) or 8
device = "auto"  # cpu or cuda; auto: the GPU if there is one
torch_dtype = "auto"  # fp32, bf16, fp16; auto: bf16 on a GPU that has it, else fp16; fp32 on a CPU
use_activation_checkpointing = True  # slower by a third, a fraction of the memory

# LoRA
lora_r = 64
lora_alpha = 16
lora_dropout = 0.1
lora_target_modules = "all-linear"  # or a list: ["q_proj", "v_proj"]
lora_variant = None  # rslora, dora or pissa
neftune_noise_alpha = None  # noise on the input embeddings while training; 5 is usual

# Data
data_path = "medication-qa"  # a file, a folder, a hub id, or the embedded medication-qa
dataset_info = None  # a dataset_info.json of names for data_path; None: one here or in ./data, if there is one
mix = "concat"  # several sources, data_path=["a.jsonl", dict(path="b.csv", weight=0.5)], in turn; or interleave
data_sheet = None  # of an xlsx with several sheets
data_encoding = None  # of text files; None: told from the content
data_header = None  # of tables: True, False, or None: told from the rows
data_documents = "line"  # of plain text: one a line, one a paragraph, or the file
data_columns = None  # dict(input="A", output="D") or by header name
dataset_map_fn = None  # a name (medtune list-dataset-format) or a function; None detects the row's shape
prompt_template = None  # a template's name; None: the tokenizer's own chat template
placeholders = None  # dict(name="MedTune", author="Ward 3") fills <NAME> and <AUTHOR> of self-cognition data
SYSTEM = ""  # system text of conversations that bring none, and of evaluation_inputs
max_length = 2048  # tokens of the longest sample and of a pack
train_on = "answers"  # the answers, the last one of each conversation ("last"), or prompts too ("all")
overflow = "drop"  # longer samples: drop, truncate, split or error
pack_to_max_length = True  # lay whole samples together; attention stays inside each sample
group_by_length = False  # steps of rows of like length, for unpacked training
drop_empty = False  # leave out rows with an empty answer; else they stop the run
max_train_samples = None  # rows used, drawn by seed
val_ratio = 0.0  # share of the rows kept for validation, by question
val_data_path = None  # or a file of its own, read as data_path is
max_eval_samples = None  # rows of the validation data used, drawn by seed
data_cache = True  # keep encoded rows in a private folder below $MEDTUNE_CACHE or ~/.cache/medtune
overwrite_cache = False  # encode anew what is kept there
num_proc = None  # processes that encode; None: one a core

# Scheduler and optimizer
batch_size = 1  # packs in a forward pass, per device
accumulative_counts = 16  # forward passes in an optimizer step
dataloader_num_workers = 0
max_epochs = 3  # a fraction is allowed
max_steps = None  # optimizer steps; if set, max_epochs is not used
optim_type = "adamw"  # adamw_8bit, paged_adamw_8bit, paged_adamw_32bit, adafactor, muon, sgd; or a torch class
lr = 2e-4
betas = (0.9, 0.999)
weight_decay = 0
lora_plus_ratio = None  # rate of every lora_B over that of lora_A; 16 is usual
paramwise_cfg = None  # rates and decays by parameter: dict(custom_keys={"lora_A": dict(lr_mult=0.5)})
max_norm = 1  # gradient clipping
lr_schedule = "cosine"  # cosine, linear, constant or wsd, after the warm-up; or f(step, num_steps, num_warmup_steps)
warmup_ratio = 0.03
warmup_steps = None  # if set, warmup_ratio is not used
min_lr_ratio = 0.0  # rate at the end, as a share of lr
seed = 42

# Save and log; all intervals are in optimizer steps
save_steps = None  # None: after each epoch
save_total_limit = None  # checkpoints kept; None: all
async_save = False  # True: write a copy while training goes on; takes its size in memory
logging_interval = 10
logging_first_step = True
tensorboard = False  # also write TensorBoard events

# Evaluate during training
eval_steps = None  # optimizer steps between validations; None: after each epoch
eval_batch_size = None  # samples in a forward pass; None: batch_size
save_best = None  # val_loss or val_accuracy: the best checkpoint is kept, and best_checkpoint names it
early_stopping_patience = None  # validations in a row without a better one
evaluation_freq = 500  # between rounds of evaluation_inputs
evaluation_inputs = []
evaluation_max_new_tokens = 128

#######################################################################
#                     PART 2  Model and tokenizer                     #
#######################################################################
tokenizer = dict(
    type=load_tokenizer,
    pretrained_model_name_or_path=tokenizer_name_or_path or pretrained_model_name_or_path,
    trust_remote_code=trust_remote_code,
    revision=None if tokenizer_name_or_path else model_revision,
)

model = dict(
    type=SupervisedFinetune,
    method=method,
    llm=dict(
        type=load_llm,
        pretrained_model_name_or_path=pretrained_model_name_or_path,
        torch_dtype="fp32" if method == "full" else torch_dtype,
        bits=quantization_bits if method == "qlora" else None,
        device=device,
        trust_remote_code=trust_remote_code,
        revision=model_revision,
    ),
    lora=None
    if method == "full"
    else dict(
        type=LoraConfig,
        r=lora_r,
        lora_alpha=lora_alpha,
        lora_dropout=lora_dropout,
        bias="none",
        target_modules=parts.names(lora_target_modules),
        task_type="CAUSAL_LM",
    ),
    lora_variant=lora_variant,
    use_activation_checkpointing=use_activation_checkpointing,
    torch_dtype=torch_dtype,
    neftune_noise_alpha=neftune_noise_alpha,
)

#######################################################################
#                    PART 3  Dataset and dataloader                   #
#######################################################################
train_dataset = dict(
    type=build_dataset,
    dataset=dict(
        type=read_sources,
        data_path=data_path,
        dataset_info=dataset_info,
        mix=mix,
        seed=seed,
        sheet=data_sheet,
        columns=data_columns,
        encoding=data_encoding,
        header=data_header,
        documents=data_documents,
    ),
    tokenizer=tokenizer,
    max_length=max_length,
    dataset_map_fn=dataset_map_fn,
    prompt_template=prompt_template,
    system=SYSTEM,
    train_on=train_on,
    placeholders=placeholders,
    overflow=overflow,
    pack_to_max_length=pack_to_max_length,
    drop_empty=drop_empty,
    max_dataset_length=max_train_samples,
    val_ratio=val_ratio,
    seed=seed,
    data_cache=data_cache,
    overwrite_cache=overwrite_cache,
    num_proc=num_proc,
)

train_dataloader = dict(
    type=step_dataloader,
    dataset=train_dataset,
    batch_size=batch_size,
    accumulative_counts=accumulative_counts,
    num_workers=dataloader_num_workers,
    shuffle=True,
    seed=seed,
    group_by_length=group_by_length,
)

val_dataset = parts.validation_data(
    train_dataset,
    data_path=val_data_path,
    max_dataset_length=max_eval_samples,
    required=save_best is not None or early_stopping_patience is not None,
)

val_dataloader = dict(
    type=step_dataloader,
    dataset=val_dataset,
    batch_size=batch_size if eval_batch_size is None else eval_batch_size,
    shuffle=False,
)

#######################################################################
#                   PART 4  Scheduler and optimizer                   #
#######################################################################
optim_wrapper = dict(
    type=StepOptimWrapper,
    optimizer=dict(
        type=make_optimizer,
        optim_type=optim_type,
        lr=lr,
        betas=betas,
        weight_decay=weight_decay,
        paramwise_cfg=paramwise_cfg,
        lora_plus_ratio=lora_plus_ratio,
    ),
    clip_grad=dict(max_norm=max_norm) if max_norm else None,
    dtype=torch_dtype,
)

param_scheduler = dict(
    type=warmup_schedule,
    schedule=lr_schedule,
    warmup_ratio=warmup_ratio,
    warmup_steps=warmup_steps,
    min_lr_ratio=min_lr_ratio,
)

train_cfg = dict(type=TrainLoop, max_epochs=max_epochs, max_steps=max_steps)

#######################################################################
#                           PART 5  Runtime                           #
#######################################################################
default_hooks = dict(
    logger=dict(type=LoggerHook, interval=logging_interval, log_first_step=logging_first_step),
    validation=dict(
        type=ValidationHook,
        interval=eval_steps,
        save_best=save_best,
        early_stopping_patience=early_stopping_patience,
    ),
    checkpoint=dict(
        type=CheckpointHook, save_steps=save_steps, save_total_limit=save_total_limit, async_save=async_save
    ),
)

custom_hooks = [
    dict(type=DatasetInfoHook),
    dict(type=ProgressBarHook),
    dict(type=LossPlotHook),
    dict(
        type=EvaluateChatHook,
        tokenizer=tokenizer,
        evaluation_inputs=evaluation_inputs,
        every_n_iters=evaluation_freq,
        system=SYSTEM,
        prompt_template=prompt_template,
        max_new_tokens=evaluation_max_new_tokens,
    ),
]

visualizer = dict(type=scalar_backends, tensorboard=tensorboard)

log_level = "INFO"

work_dir = None  # of logs and checkpoints; None: work_dirs/NAME

randomness = dict(seed=seed)
