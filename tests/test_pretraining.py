"""Continued pre-training: which ids a document becomes, what is trained, how packs are read, and a whole run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import relative, tiny_llama, tiny_llama_folder
from openpyxl import Workbook
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from medtune.build import build, check
from medtune.config import load
from medtune.convert import pth_to_hf
from medtune.data.pipeline import build_dataset, step_dataloader
from medtune.data.readers import EMBEDDED, read_data
from medtune.data.templates import document_template
from medtune.engine.train import prepare_inputs, train
from medtune.errors import ConfigError
from medtune.merge import merge
from medtune.models import attention
from medtune.models.sft import Pretrain

TEXTS = ["Fever is a raised temperature.", "布洛芬可以退热，饭后服用。", "Say <|im_end|> if it hurts.", "A\n\nB  C"]


@pytest.fixture(scope="session")
def words_tokenizer():
    """Like Llama 2's: `<s>` opens every text, and a text alone begins with a space that it has nowhere else."""
    characters = sorted(set("".join(TEXTS)) - {" ", "\n"})
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", "▁", "\n", *characters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def documents(texts, tokenizer, block_size=64, end=None, **settings):
    rows = [{"text": text} for text in texts]
    settings = {"overflow": "split", "data_cache": False, **settings}
    return build_dataset(rows, tokenizer, block_size, prompt_template=document_template(end), **settings)


@pytest.mark.parametrize("name", ["tiny_tokenizer", "words_tokenizer"])
def test_a_document_is_what_the_tokenizer_makes_of_its_text_and_the_end_token(name, request):
    """Fault: a chat template around it; the text tokenised as if something stood before it; no end token."""
    tokenizer = request.getfixturevalue(name)
    texts = [text for text in TEXTS if "im_end" not in text]
    samples = documents(texts, tokenizer).samples
    for i, text in enumerate(texts):
        wanted = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
        assert samples[i]["input_ids"].tolist() == wanted
        assert samples[i]["labels"].tolist() == [-100, *wanted[1:]]


def test_another_end_token_can_be_named_and_text_never_becomes_one(tiny_tokenizer):
    samples = documents(TEXTS, tiny_tokenizer, end="<|endoftext|>").samples
    end, im_end = (tiny_tokenizer.convert_tokens_to_ids(t) for t in ("<|endoftext|>", "<|im_end|>"))
    assert [int(samples[i]["input_ids"][-1]) for i in range(4)] == [end] * 4
    assert not any(im_end in samples[i]["input_ids"] for i in range(4))
    assert tiny_tokenizer.decode(samples[2]["input_ids"][:-1]) == TEXTS[2]


def test_a_row_of_several_texts_is_one_document(tiny_tokenizer):
    rows = [{"question": "What is a fever?", "answer": "A raised temperature."}]
    samples = build_dataset(rows, tiny_tokenizer, 64, prompt_template=document_template()).samples
    assert tiny_tokenizer.decode(samples[0]["input_ids"][:-1]) == "What is a fever?\nA raised temperature."
    assert samples[0]["labels"].tolist()[1:] == samples[0]["input_ids"].tolist()[1:]


def test_long_documents_are_split_so_that_each_token_is_trained_once(tiny_tokenizer):
    """Fault: pieces edge to edge, whose first tokens nothing predicts, or an overlap that is trained twice."""
    text = " ".join(f"word {i}" for i in range(100))
    data = documents([text, "short"], tiny_tokenizer, 32)
    whole = documents([text], tiny_tokenizer, 4096).samples[0]["input_ids"].tolist()
    pieces = [data.samples[i] for i in range(len(data.samples) - 1)]
    assert [i for piece in pieces for i in piece["input_ids"][piece["labels"] >= 0].tolist()] == whole[1:]
    assert all(len(piece["input_ids"]) <= 32 for piece in pieces)
    assert "truncated 0, split 1" in data.report.lines()
    assert sorted(i for pack in data.packs for i in pack) == list(range(len(data.samples)))
    assert all(sum(data.samples.lengths[pack]) <= 32 for pack in data.packs)


def plain_loss(model, ids):
    """Nats summed over all tokens of a text but its first, by plain transformers."""
    ids = torch.tensor(ids)[None]
    return model(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)


@pytest.mark.parametrize("isolated", [True, False])
def test_a_pack_is_read_document_by_document_or_as_one_text(tiny_tokenizer, isolated):
    """Fault: a document sees the one before it though isolated; or, though not, it begins at position 0 again."""
    data = documents(TEXTS, tiny_tokenizer, 128)
    (batch,) = step_dataloader(data, shuffle=False, isolate_documents=isolated)
    model = tiny_llama(vocab_size=12288)
    plain = tiny_llama(vocab_size=12288)
    model.set_attn_implementation(attention.NAME)
    stage = Pretrain(model, None, False, "fp32")
    (micro,) = batch.micro_batches
    ids = [data.samples[i]["input_ids"].tolist() for i in data.packs[0]]
    assert len(data.packs) == 1 and len(micro.cu_seqlens) == (5 if isolated else 2)
    if isolated:
        wanted = sum(plain_loss(plain, one) for one in ids)
    else:
        joined = torch.tensor([token for one in ids for token in one])[None]
        labels = torch.tensor([label for one in ids for label in [-100, *one[1:]]])[None]
        wanted = plain(input_ids=joined, labels=labels, num_items_in_batch=1).loss
    assert stage(micro).loss_sum.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert batch.num_units == sum(map(len, ids)) - 4


def test_packs_that_lie_in_one_row_stay_apart_when_each_is_one_text(tiny_tokenizer):
    data = documents(TEXTS * 3, tiny_tokenizer, 32)
    sizes = [int(data.samples.lengths[pack].sum()) for pack in data.packs]
    (batch,) = step_dataloader(data, batch_size=len(data.packs), shuffle=False, isolate_documents=False)
    assert batch.micro_batches[0].cu_seqlens.diff().tolist() == sizes
    assert batch.num_tokens == data.report.encoded.num_tokens


def test_an_epoch_of_joined_packs_trains_what_an_epoch_of_isolated_ones_does(tiny_tokenizer):
    data = documents([f"{i} {text}" for i in range(9) for text in TEXTS], tiny_tokenizer, 48)
    trained = []
    for isolated in (True, False):
        loader = step_dataloader(data, batch_size=2, accumulative_counts=2, seed=3, isolate_documents=isolated)
        loader.batch_sampler.seek(1)
        trained.append(sorted(t for b in loader for micro in b.micro_batches for t in micro.targets.tolist()))
    assert trained[0] == trained[1]


def write_corpora(folder: Path) -> dict[str, Path]:
    """The same two documents in each form that a corpus comes in."""
    files = {name: folder / f"corpus.{name}" for name in ("txt", "jsonl", "xlsx", "xml")}
    files["txt"].write_text("Fever is common.\nIbuprofen helps.\n", encoding="utf-8")
    rows = [{"text": "Fever is common."}, {"text": "Ibuprofen helps."}]
    files["jsonl"].write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    book = Workbook()
    for cells in (("id", "abstract"), (1, "Fever is common."), (2, "Ibuprofen helps.")):
        book.active.append(cells)
    book.save(files["xlsx"])
    pairs = "".join(f"<QAPair><Question>What?</Question><Answer>{row['text']}</Answer></QAPair>" for row in rows)
    files["xml"].write_text(f"<Document><QAPairs>{pairs}</QAPairs></Document>", encoding="utf-8")
    return files


@pytest.mark.parametrize("form", ["txt", "jsonl", "xlsx", "xml"])
def test_documents_come_from_text_jsonl_xml_and_spreadsheets(form, tmp_path, tiny_tokenizer):
    columns = {"text": "abstract"} if form == "xlsx" else None
    rows = read_data(write_corpora(tmp_path)[form], columns=columns)
    samples = build_dataset(rows, tiny_tokenizer, 64, prompt_template=document_template()).samples
    texts = [tiny_tokenizer.decode(samples[i]["input_ids"][:-1]) for i in range(len(samples))]
    asked = "What?\n" if form == "xml" else ""
    assert texts == [f"{asked}Fever is common.", f"{asked}Ibuprofen helps."]


def test_block_size_and_isolation_are_settings_that_reach_what_they_name():
    values = load("pt", [("block_size", "77"), ("isolate_documents", "False")]).values
    assert values["train_dataset"]["max_length"] == values["val_dataset"]["max_length"] == 77
    assert values["train_dataloader"]["isolate_documents"] is False
    assert values["train_dataset"]["overflow"] == "split"
    assert check(values) == []


def test_a_tokenizer_without_an_end_token_is_refused_unless_one_is_named(words_tokenizer):
    words_tokenizer = PreTrainedTokenizerFast(tokenizer_object=words_tokenizer.backend_tokenizer)
    with pytest.raises(ConfigError, match=r"^template 'document' ends answers with the eos token and .* has none"):
        documents(TEXTS, words_tokenizer)
    assert documents(TEXTS[:1], words_tokenizer, end="</s>").samples[0]["input_ids"][-1] == 2


def test_the_bundled_documents_are_whole_and_in_both_languages(tiny_tokenizer):
    texts = [row.fields["text"] for row in read_data("medical-documents")]
    assert len(texts) == len(set(texts)) == 44 == len(EMBEDDED["medical-documents"].read_bytes().splitlines())
    assert sum("\u4e00" <= text[0] <= "\u9fff" or text[0] == "1" or text[0] == "2" for text in texts) == 22
    assert all(text == text.strip() and text[-1] in ".。" and 60 < len(text) < 700 for text in texts)
    unknown = documents(texts, tiny_tokenizer, 1024).samples
    assert all(tiny_tokenizer.decode(unknown[i]["input_ids"][:-1]) == text for i, text in enumerate(texts))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_run_trains_documents_and_its_result_converts_merges_and_continues_texts(method, tmp_path):
    from medtune.chat import open_session
    from medtune.generate import Sampling

    base = tiny_llama_folder(tmp_path / "base")
    changes = {
        "pretrained_model_name_or_path": base,
        "method": method,
        "block_size": 128,
        "max_steps": 2,
        "accumulative_counts": 2,
        "val_ratio": 0.2,
        "lora_r": 4,
        "use_activation_checkpointing": False,
    }
    config = load("pt", [(name, str(value)) for name, value in changes.items()])
    runner = train(config, tmp_path / "work")
    assert runner.metrics["val_bits_per_character"] > 0
    (checkpoint,) = (tmp_path / "work").glob("*.pth")
    pth_to_hf(checkpoint, tmp_path / "hf")
    result = tmp_path / "hf"
    if method == "lora":
        merge(base, tmp_path / "hf", tmp_path / "merged", verify=True)
        result = tmp_path / "merged"
    assert json.loads((result / "medtune.json").read_text())["stage"] == "pt"
    # a document says nothing of chat: the next stage finds the base's own template
    assert (result / "chat_template.jinja").read_text() == (base / "chat_template.jinja").read_text()
    notices: list[str] = []
    session = open_session(str(result), Sampling(max_new_tokens=2), device="cpu", on_notice=notices.append)
    assert session.template.name == "continuation"
    assert notices == ["pre-trained on documents: your text is simply continued. --prompt-template NAME sets one."]


def test_pretraining_is_the_same_step_as_fine_tuning_on_the_same_tokens(tiny_tokenizer):
    data = documents(TEXTS, tiny_tokenizer, 128)
    (batch,) = step_dataloader(data, shuffle=False)
    model = tiny_llama(vocab_size=12288)
    model.set_attn_implementation(attention.NAME)
    stage = Pretrain(model, None, False, "fp32").train()
    (stage(batch.micro_batches[0]).loss_sum / batch.num_units).backward()
    plain = tiny_llama(vocab_size=12288)
    total = sum(plain_loss(plain, data.samples[i]["input_ids"].tolist()) for i in range(4))
    (total / batch.num_units).backward()
    for got, wanted in zip(stage.llm.parameters(), plain.parameters(), strict=True):
        assert relative(got.grad, wanted.grad) < 1e-5


def test_the_demo_configs_prepare_without_a_document_left_behind(tmp_path):
    inputs = prepare_inputs(load("med_llama_tiny_lora_pt_documents_e3"))
    told = inputs.train_dataset.report
    assert told.encoded.num_rows + told.dropped["set aside for validation"] == 44
    assert told.encoded.num_tokens - told.encoded.num_trained_tokens == told.encoded.num_samples
    assert np.all(inputs.train_dataset.samples.lengths <= 256)
    assert build(load("pt").values["prompt_template"]) == document_template()
