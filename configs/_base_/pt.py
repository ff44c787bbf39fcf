"""Continued pre-training (full, LoRA or QLoRA) on documents: text in, no chat template around it."""

from medtune.data.templates import document_template
from medtune.models.sft import Pretrain

_base_ = "sft"

# Documents
block_size = 1024  # tokens of a pack of documents, and of each piece of one that is longer
document_end = None  # the token that ends a document, such as "<|endoftext|>"; None: the tokenizer's eos token
isolate_documents = True  # False: a pack is read as one text, in which a document sees those before it

data_path = "medical-documents"
max_length = block_size
prompt_template = dict(type=document_template, end=document_end)
overflow = "split"
drop_empty = True
max_epochs = 1
weight_decay = 0.01

model["type"] = Pretrain
train_dataloader["isolate_documents"] = isolate_documents
