"""Tokenizers of original models have the ids of sentencepiece and tiktoken, text for text."""

from __future__ import annotations

import base64
import io
import json
import random

import pytest
import sentencepiece
import tiktoken

from medtune.errors import ModelError
from medtune.models.legacy.tokenizer import QWEN_TOKENS, QWEN_WORDS
from medtune.models.load import load_tokenizer

WORDS = ["aspirin", "fever", "发热", "头痛", "dose", "of", "5", "mg", "twice,", "after", "meals;", "pain:", "布洛芬"]
WORDS += ["每日", "<b>", "\n", "é", "😀", "kidneys'", "it's", "", "two", "", "spaces"]
TEXTS = [" ".join(random.Random(i).choices(WORDS, k=i % 23 + 1)) for i in range(300)]
TEXTS += ["", " ", "  a  b ", "\n\na", "a<eoh>b", "<eoh>\n<|Bot|>:x<eoa> y", "tab\there", "①ﬁ", "▁x"]
OWN = ["<eoh>", "<eoa>"]


def spm_folder(folder, tokenizer_class, settings=None, **options):
    folder.mkdir()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS[:200]),
        model_writer=model,
        vocab_size=420,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
        **{"normalization_rule_name": "identity", "remove_extra_whitespaces": False, **options},
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    written = {
        "tokenizer_class": tokenizer_class,
        "auto_map": {"AutoTokenizer": ["evil.Evil", None]},
        **(settings or {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(written))
    return folder, sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"user_defined_symbols": OWN},
        {"add_dummy_prefix": False},
        {"remove_extra_whitespaces": True, "normalization_rule_name": "nmt_nfkc"},
    ],
)
@pytest.mark.parametrize("tokenizer_class", ["InternLMTokenizer", "BaichuanTokenizer", "ChatGLMTokenizer"])
def test_ids_are_those_of_sentencepiece(tokenizer_class, options, tmp_path):
    folder, original = spm_folder(tmp_path / "t", tokenizer_class, **options)
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.is_fast
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False) == original.encode(text), text
    pieces = [original.id_to_piece(i) for i in range(original.get_piece_size())]
    assert tokenizer.convert_tokens_to_ids(pieces) == list(range(len(pieces)))
    text = "发热 aspirin, 😀 5 mg"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_chatglm_opens_a_text_with_its_two_tokens_and_knows_the_roles(tmp_path):
    folder, original = spm_folder(tmp_path / "t", "ChatGLMTokenizer")
    tokenizer, first = load_tokenizer(str(folder)), original.get_piece_size()
    assert tokenizer.encode("dose") == [first + 1, first + 3, *original.encode("dose")]
    roles = ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    assert tokenizer.convert_tokens_to_ids(roles) == list(range(first + 5, first + 9))
    assert tokenizer.encode("<|user|>\ndose", add_special_tokens=False) == [first + 6, *original.encode("\ndose")]


def test_added_tokens_keep_the_ids_that_the_folder_gives_them(tmp_path):
    declared = {"420": {"content": "<|im_start|>"}, "421": {"content": "<|im_end|>"}, "2": {"content": "</s>"}}
    settings = {"added_tokens_decoder": declared, "chat_template": "{{ 1 }}"}
    folder, original = spm_folder(tmp_path / "t", "InternLM2Tokenizer", settings)
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.encode("<|im_start|>dose</s>") == [1, 420, *original.encode("dose"), 2]
    assert (tokenizer.eos_token_id, tokenizer.chat_template) == (2, "{{ 1 }}")
    settings["added_tokens_decoder"] = {"999": {"content": "<|far|>"}}
    folder, _ = spm_folder(tmp_path / "u", "InternLM2Tokenizer", settings)
    with pytest.raises(ModelError, match=r"'<\|far\|>' cannot have the id 999"):
        load_tokenizer(str(folder))


def test_the_saved_tokenizer_is_plain_transformers_and_the_same(tmp_path):
    from transformers import AutoTokenizer

    folder, original = spm_folder(tmp_path / "t", "InternLMTokenizer", user_defined_symbols=OWN)
    load_tokenizer(str(folder)).save_pretrained(tmp_path / "saved")
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert all(again.encode(text, add_special_tokens=False) == original.encode(text) for text in TEXTS)


def tiktoken_folder(folder):
    folder.mkdir()
    ranks = {bytes([i]): i for i in range(256)}
    words = sorted({part for text in TEXTS for word in text.split() for part in (word, " " + word)})
    for word in (word.encode() for word in words):  # ranks by length, as merges make them
        for end in range(2, len(word) + 1):
            ranks.setdefault(word[:end], len(ranks))
    ranks[b"qzj"] = len(ranks)  # a word of its own, that no merges lead to
    ranks = {token: i for i, token in enumerate(sorted(ranks, key=lambda token: (len(token), ranks[token])))}
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items()]
    (folder / "qwen.tiktoken").write_text("\n".join(lines))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "QWenTokenizer"}')
    specials = {token: len(ranks) + i for i, token in enumerate(QWEN_TOKENS)}
    return folder, tiktoken.Encoding("q", pat_str=QWEN_WORDS, mergeable_ranks=ranks, special_tokens=specials)


def test_ids_are_those_of_tiktoken(tmp_path):
    folder, original = tiktoken_folder(tmp_path / "q")
    tokenizer = load_tokenizer(str(folder))
    for text in [*TEXTS, "<|im_start|>user\ndose<|im_end|>", "<|extra_204|>", "qzj"]:
        assert tokenizer.encode(text) == original.encode(text, allowed_special="all"), text
    assert tokenizer.eos_token_id == original.encode("<|endoftext|>", allowed_special="all")[0]


@pytest.mark.parametrize("content", [b"", b"\xff\x00 nothing", b"x" * 999])
def test_a_damaged_vocabulary_is_refused_in_one_line(content, tmp_path):
    for name, kind in (("tokenizer.model", "InternLMTokenizer"), ("qwen.tiktoken", "QWenTokenizer")):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
        with pytest.raises(ModelError, match=name) as fault:
            load_tokenizer(str(tmp_path))
        assert "\n" not in str(fault.value)
