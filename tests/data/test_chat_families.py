"""The chat templates of current model families: our rows are, token by token, what transformers and chat make of them.

The fixtures in chat_templates/ are the families' formats, written by hand, with `{% generation %}` marks around what
an assistant says. The marks are the oracle: `apply_chat_template(return_assistant_tokens_mask=True)` reads them, and
we get the same template without them.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.data.encode import Encoder, encode, encode_prompt
from medtune.data.records import mark_trained, to_record
from medtune.data.segments import Segment
from medtune.data.templates import resolve_template
from medtune.errors import DataError

FOLDER = Path(__file__).parent / "chat_templates"
CHATML = ["<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
GEMMA = ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
DEEPSEEK = [
    "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> <｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜> <｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁outputs▁begin｜> <｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜> <｜tool▁output▁end｜>",
]
MISTRAL = "<s> </s> [INST] [/INST] [TOOL_CALLS] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS]"


class Family(NamedTuple):
    specials: list[str]
    eos: str
    bos: str | None = None
    tags: tuple[str, ...] = ()
    """Added tokens that are not special."""
    tools: bool = False
    system: bool = True
    end: str | None = None
    """What ends an answer, if it is not eos."""
    writes_end: bool = True
    """False if the template itself ends an answer with nothing."""
    one_row: bool = True
    """False if a later answer does not follow on an earlier one."""


FAMILIES = {
    "llama2": Family(["<s>", "</s>"], "</s>", "<s>", end=" </s>"),
    "llama31": Family([*LLAMA3, "<|end_of_text|>"], "<|eot_id|>", "<|begin_of_text|>", tools=True),
    "qwen25": Family(["<|endoftext|>", *CHATML], "<|im_end|>", tags=("<tool_call>", "</tool_call>"), tools=True),
    "qwen3": Family(
        ["<|endoftext|>", *CHATML], "<|im_end|>", tags=("<think>", "</think>"), tools=True, one_row=False
    ),
    "qwq": Family(["<|endoftext|>", *CHATML], "<|im_end|>", tags=("<think>", "</think>"), one_row=False),
    "chatglm3": Family(
        ["[gMASK]", "sop", "<|user|>", "<|assistant|>", "<|system|>", "</s>"], "</s>", writes_end=False, one_row=False
    ),
    "glm4": Family(
        ["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|system|>", "<|observation|>", "<|endoftext|>"],
        "<|endoftext|>",
        tools=True,
        writes_end=False,
        one_row=False,
    ),
    "internlm2": Family(["<s>", "</s>", *CHATML], "</s>", "<s>", end="<|im_end|>"),
    "mistral_v03": Family(MISTRAL.split(), "</s>", "<s>", tools=True, one_row=False),
    "mistral_v7": Family(
        [*MISTRAL.split(), "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[ARGS]"], "</s>", "<s>", tools=True
    ),
    "gemma2": Family(GEMMA, "<eos>", "<bos>", system=False, end="<end_of_turn>"),
    "gemma3": Family(GEMMA, "<eos>", "<bos>", end="<end_of_turn>"),
    "medgemma": Family([*GEMMA, "<start_of_image>"], "<end_of_turn>", "<bos>"),
    "phi3": Family(["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"], "<|endoftext|>",
                   end="<|end|>"),
    "phi4": Family(["<|endoftext|>", *CHATML, "<|im_sep|>"], "<|endoftext|>", end="<|im_end|>"),
    "zephyr": Family(["<s>", "</s>"], "</s>", "<s>"),
    "deepseek_r1": Family(
        " ".join(DEEPSEEK).split(), "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>", tags=("<think>", "</think>"),
        one_row=False,
    ),
    "baichuan2": Family(["<s>", "</s>", "<reserved_106>", "<reserved_107>"], "</s>", writes_end=False, one_row=False),
    "yi": Family(["<|startoftext|>", *CHATML], "<|im_end|>"),
    "huatuogpt_o1": Family(LLAMA3, "<|eot_id|>", "<|begin_of_text|>"),
    "vicuna": Family(["<s>", "</s>"], "</s>", "<s>"),
}  # fmt: skip
PIECES = ("llama2", "mistral_v03", "mistral_v7", "gemma2", "gemma3", "baichuan2", "zephyr", "vicuna", "internlm2")
"""Families whose tokenizers put a space before a text, as SentencePiece does."""
OPENED = ("qwq", "deepseek_r1")
"""Families whose prompt opens a thought that the template never writes."""

TOOLS = [{"type": "function", "function": {"name": "dose", "description": "成人剂量 of a drug", "parameters": {
    "type": "object", "properties": {"drug": {"type": "string"}}}}}]  # fmt: skip


def said(role, content="", **more):
    return {"role": role, "content": content, **more}


def call(drug):
    return {"type": "function", "function": {"name": "dose", "arguments": {"drug": drug}}}


SHAPES = {
    "single": [said("user", "How much paracetamol?"), said("assistant", "At most 4 g a day.")],
    "system": [said("system", "你是医生。"), said("user", "头孢可以和酒一起吗？"), said("assistant", "不可以 😷")],
    "turns": [said("user", "a"), said("assistant", "b c"), said("user", "问"), said("assistant", "答，\n\n1. x")],
    "system turns": [said("system", "Be brief."), said("user", "Q1"), said("assistant", "A1"), said("user", "Q2"),
                     said("assistant", "A2"), said("user", "Q3"), said("assistant", "A3")],
    "braces": [said("user", "{{ x }} {% if %} {0}"), said("assistant", "```py\n  x = {1: 2}\n```")],
    "white space": [said("user", " q \n"), said("assistant", "a \n"), said("user", "\tq"), said("assistant", "b\n\n")],
}  # fmt: skip
THOUGHTS = [said("user", "Q1"), said("assistant", "A1", reasoning="T1, 想"), said("user", "Q2"),
            said("assistant", "A2", reasoning="T2\n\nthen")]  # fmt: skip
TOOL_LOOP = [said("user", "Dose?"), said("assistant", tool_calls=[call("布洛芬")]), said("tool", '{"mg": 400}'),
             said("assistant", "400 mg."), said("user", "Thanks"), said("assistant", "Welcome.")]  # fmt: skip
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
"""How the byte-level tokenizers of Llama 3 and Qwen cut text: a run of line breaks stays whole."""
_BACKENDS = {}


def backend(kind):
    """A small BPE tokenizer: GPT-like bytes, or Llama-like pieces with a space put before every text."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    if kind not in _BACKENDS:
        special = [AddedToken(f"<0x{byte:02X}>", special=False) for byte in range(256)] if kind == "pieces" else []
        if kind == "bytes":
            built = Tokenizer(models.BPE())
            split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
            byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            built.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
            built.decoder = decoders.ByteLevel()
            alphabet = pre_tokenizers.ByteLevel.alphabet()
        else:
            built = Tokenizer(models.BPE(byte_fallback=True, unk_token="<0x00>", fuse_unk=True))
            built.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            built.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
            alphabet = []
        texts = [m["content"] for shape in (*SHAPES.values(), THOUGHTS) for m in shape] * 2
        texts = [line for text in texts for line in text.splitlines()]  # a line break is a byte of its own there
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False, max_token_length=6
        )
        built.train_from_iterator(texts, trainer)
        _BACKENDS[kind] = built
    return copy.deepcopy(_BACKENDS[kind])


def tokenizer_of(name, marked=False):
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    family = FAMILIES[name]
    built = backend("pieces" if name in PIECES else "bytes")
    built.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.specials])
    built.add_tokens([AddedToken(token, special=False, normalized=False) for token in family.tags])
    if family.bos:
        pair = (family.bos, built.token_to_id(family.bos))
        built.post_processor = processors.TemplateProcessing(f"{family.bos} $A", None, [pair])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=built, bos_token=family.bos, eos_token=family.eos, pad_token=family.eos
    )
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8").removesuffix("\n")
    tokenizer.chat_template = source if marked else re.sub(r"\{%-? (end)?generation -?%\}", _unmarked, source)
    return tokenizer


def _unmarked(match):
    """A comment in the mark's place, so that the template strips the same white space around it."""
    return match[0].replace("{%", "{#").replace("%}", "#}")


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request):
    tokenizer = tokenizer_of(request.param)
    return request.param, tokenizer, resolve_template(None, tokenizer)


def conversation(messages, tools=(), train_on="answers"):
    return mark_trained(to_record({"messages": messages, "tools": list(tools)}, "row"), train_on)


def rows_of(messages, template, tokenizer, tools=(), train_on="answers"):
    samples, _ = encode([conversation(messages, tools, train_on)], template, tokenizer, None)
    return [(sample["input_ids"].tolist(), (sample["labels"] >= 0).tolist()) for sample in samples]


def trained_texts(tokenizer, ids, trained):
    """What each stretch of trained tokens says."""
    edges = np.flatnonzero(np.diff([False, *trained, False])).tolist()
    return [tokenizer.decode(ids[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def as_dicts(messages):
    """As transformers wants them: reasoning by its name there, and the ids that we give tool calls and results."""
    told, num_calls = [], 0
    for message in messages:
        message = dict(message)
        if "reasoning" in message:
            message["reasoning_content"] = message.pop("reasoning")
        if calls := message.get("tool_calls"):
            message["tool_calls"] = [{**c, "id": f"call{num_calls + k:05d}"} for k, c in enumerate(calls)]
            num_calls += len(calls)
        if message["role"] == "tool":
            message["tool_call_id"] = f"call{num_calls - 1:05d}"
        told.append(message)
    return told


def shapes_of(name):
    shapes = {k: m for k, m in SHAPES.items() if FAMILIES[name].system or m[0]["role"] != "system"}
    if FAMILIES[name].tools:
        shapes["tools"] = TOOL_LOOP
    if name not in ("gemma2", "gemma3", "phi3"):
        shapes["thoughts"] = THOUGHTS
    return shapes


def tools_of(shape):
    return TOOLS if shape == "tools" else ()


def test_every_fixture_is_a_family_and_there_are_enough():
    assert {file.stem for file in FOLDER.glob("*.jinja")} == set(FAMILIES)
    assert len(FAMILIES) >= 14


def test_each_answer_is_trained_once_and_its_row_begins_with_the_ids_chat_sends(family):
    name, tokenizer, template = family
    for shape, messages in shapes_of(name).items():
        rows = rows_of(messages, template, tokenizer, tools_of(shape))
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        waiting = list(answers)
        for ids, trained in rows:
            edges = np.flatnonzero(np.diff([False, *trained, False])).tolist()
            for start, end in zip(edges[::2], edges[1::2], strict=True):
                i = waiting.pop(0)
                # What chat holds as history is never trained; that must not change an id.
                history = conversation(messages[: i + 1], tools_of(shape), "last").messages[:-1]
                assert encode_prompt(history, template, tokenizer, tools_of(shape)) == ids[:start], (shape, i)
                text = tokenizer.decode(ids[start:end])
                told = messages[i]["content"] or '{"drug": "布洛芬"}'
                assert told.strip() in text and text.endswith(FAMILIES[name].end or FAMILIES[name].eos), (shape, i)
        assert not waiting
        assert len(rows) == (1 if FAMILIES[name].one_row else len(rows))
        if shape == "system turns" and not FAMILIES[name].one_row:
            assert len(rows) == len(answers)


def test_ids_and_mask_are_those_of_transformers(family):
    """The last answer of each row has transformers' mask; those before it are that of one row, if all are in it."""
    name, tokenizer, template = family
    marked = tokenizer_of(name, marked=True)
    for shape, messages in shapes_of(name).items():
        if name in OPENED or (shape == "thoughts" and name != "qwen3"):
            continue  # a thought that the template does not write: see the tests below
        if name == "mistral_v03" and messages[0]["role"] == "system":
            continue  # it writes no system text into a conversation that ends with an answer: see below
        tools = tools_of(shape)
        answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        rows = rows_of(messages, template, tokenizer, tools)
        done = 0
        for ids, trained in rows:
            own = len(trained_texts(tokenizer, ids, trained))
            done += own
            told = marked.apply_chat_template(
                as_dicts(messages[: answers[done - 1] + 1]),
                tools=list(tools) or None,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
            wanted = [m == 1 for m in told["assistant_masks"]]
            edges = np.flatnonzero(np.diff([False, *wanted, False])).tolist()
            if own < len(edges) // 2:  # earlier answers are context
                wanted[: edges[-2 * own]] = [False] * edges[-2 * own]
            if not FAMILIES[name].writes_end:
                told["input_ids"].append(tokenizer.eos_token_id)
                wanted.append(True)
            assert ids == told["input_ids"], shape
            assert trained == wanted, shape
        assert done == len(answers)


def test_marks_and_no_marks_give_the_same_rows(family):
    name, tokenizer, template = family
    if not FAMILIES[name].writes_end:
        pytest.skip("its marks end where the answer does, and nothing would be trained to end it")
    marked = tokenizer_of(name, marked=True)
    theirs = resolve_template(None, marked)
    assert theirs.marked and not template.marked
    for shape, messages in shapes_of(name).items():
        ours = rows_of(messages, template, tokenizer, tools_of(shape))
        assert rows_of(messages, theirs, marked, tools_of(shape)) == ours, shape


def test_bos_stands_where_the_template_writes_it_and_pad_is_never_trained_for_eos(family):
    name, tokenizer, template = family
    for ids, trained in rows_of(SHAPES["single"], template, tokenizer):
        if tokenizer.bos_token_id is not None:
            wanted = 1 if "bos_token" in tokenizer.chat_template else 0
            assert ids.count(tokenizer.bos_token_id) == wanted
        assert not trained[0]
        end = tokenizer.convert_tokens_to_ids((FAMILIES[name].end or FAMILIES[name].eos).strip())
        assert ids[max(np.flatnonzero(trained))] == end  # trained though pad is the same token


def test_only_the_last_answer_is_trained_and_it_is_one_row(family):
    _, tokenizer, template = family
    rows = rows_of(SHAPES["turns"], template, tokenizer, train_on="last")
    assert len(rows) == len(template.render_rows(conversation(SHAPES["turns"], train_on="last").messages)) == 1
    (text,) = trained_texts(tokenizer, *rows[0])
    assert "答" in text and "b c" not in text
    assert rows[0][0] == rows_of(SHAPES["turns"], template, tokenizer)[-1][0]


@pytest.mark.parametrize("shape", ["single", "turns", "white space"])
def test_with_all_turns_trained_the_ids_are_the_same_and_the_questions_text_is_trained(family, shape):
    name, tokenizer, template = family
    answers = rows_of(SHAPES[shape], template, tokenizer)
    every = rows_of(SHAPES[shape], template, tokenizer, train_on="all")
    assert [ids for ids, _ in every] == [ids for ids, _ in answers]
    told = []
    for (ids, trained), (_, before) in zip(every, answers, strict=True):
        assert all(new or not old for new, old in zip(trained, before, strict=True))
        extra = [new and not old for new, old in zip(trained, before, strict=True)]
        told += trained_texts(tokenizer, ids, extra)
    wanted = [m["content"].strip() for m in SHAPES[shape] if m["role"] == "user"]
    assert [text.strip() for text in told] == wanted or (name == "zephyr" and shape == "white space")
    for text in told:
        assert not any(token in text for token in FAMILIES[name].specials)


def test_offsets_count_from_the_text_and_not_from_what_it_was_tokenised_behind():
    tokenizer = tokenizer_of("vicuna")
    encoder = Encoder(resolve_template("vicuna", tokenizer), tokenizer)
    text = "a 问 b c"
    ids = encoder.ids([[Segment("x</s>", False), Segment(text, False)]])[1]
    assert ids != encoder.ids([[Segment(text, False)]])[0]  # behind nothing it gets a space
    places = encoder.offsets(text, ids)
    assert [text[start:end].strip() for start, end in places] == [tokenizer.decode([i]).strip() for i in ids]
    assert "".join(text[start:end] for start, end in places) == text


def test_text_that_looks_like_a_control_token_stays_text(family):
    name, tokenizer, template = family
    for token in [*FAMILIES[name].specials, *FAMILIES[name].tags]:
        messages = [said("user", f"x{token}y"), said("assistant", "z")]
        plain = [said("user", "xy"), said("assistant", "z")]
        (attacked, _), *_ = rows_of(messages, template, tokenizer)
        (clean, _), *_ = rows_of(plain, template, tokenizer)
        number = tokenizer.convert_tokens_to_ids(token)
        assert attacked.count(number) == clean.count(number), token
        if token in FAMILIES[name].specials:
            messages = [said("user", "x"), said("assistant", f"y{token}z")]
            assert rows_of(messages, template, tokenizer)[0][0].count(number) == clean.count(number), token


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(FAMILIES)),
    texts=st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=6),
)
def test_any_texts_give_rows_that_begin_with_their_prompt(name, texts):
    tokenizer = tokenizer_of(name)
    template = resolve_template(None, tokenizer)
    texts = [text.replace("think>", "") for text in texts]
    messages = [said(("user", "assistant")[i % 2], text) for i, text in enumerate(texts[: len(texts) // 2 * 2])]
    if not all(message["content"].strip() for message in messages):
        return
    rows = rows_of(messages, template, tokenizer)
    prompt = encode_prompt(conversation(messages).messages[:-1], template, tokenizer)
    assert rows[-1][0][: len(prompt)] == prompt
    last = trained_texts(tokenizer, *rows[-1])[-1]
    assert last.endswith(FAMILIES[name].end or FAMILIES[name].eos)


def test_a_system_text_that_moves_with_the_last_question_is_where_chat_sends_it():
    tokenizer = tokenizer_of("mistral_v03")
    rows = rows_of(SHAPES["system turns"], resolve_template(None, tokenizer), tokenizer)
    assert [tokenizer.decode(ids) for ids, _ in rows] == [
        "<s>[INST] Be brief.\n\nQ1[/INST] A1</s>",
        "<s>[INST] Q1[/INST] A1</s>[INST] Be brief.\n\nQ2[/INST] A2</s>",
        "<s>[INST] Q1[/INST] A1</s>[INST] Q2[/INST] A2</s>[INST] Be brief.\n\nQ3[/INST] A3</s>",
    ]
    assert [trained_texts(tokenizer, *row) for row in rows] == [[" A1</s>"], [" A2</s>"], [" A3</s>"]]


# -- thinking -------------------------------------------------------------------------------------------------------


def test_qwen3_gets_a_row_for_each_answer_with_old_thoughts_left_out():
    tokenizer = tokenizer_of("qwen3")
    rows = rows_of(THOUGHTS, resolve_template(None, tokenizer), tokenizer)
    assert [tokenizer.decode(ids) for ids, _ in rows] == [
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n<think>\nT1, 想\n</think>\n\nA1<|im_end|>\n",
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nQ2<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nT2\n\nthen\n</think>\n\nA2<|im_end|>\n",
    ]
    assert [trained_texts(tokenizer, *row) for row in rows] == [
        ["<think>\nT1, 想\n</think>\n\nA1<|im_end|>"],
        ["<think>\nT2\n\nthen\n</think>\n\nA2<|im_end|>"],
    ]


def test_qwen3_keeps_a_tool_loop_in_one_row_since_no_question_comes_between():
    tokenizer = tokenizer_of("qwen3")
    loop = [said("user", "Dose?"), said("assistant", reasoning="look", tool_calls=[call("a")]), said("tool", "400"),
            said("assistant", "400 mg.", reasoning="so")]  # fmt: skip
    (row,) = rows_of(loop, resolve_template(None, tokenizer), tokenizer, TOOLS)
    assert trained_texts(tokenizer, *row) == [
        '<think>\nlook\n</think>\n\n<tool_call>\n{"name": "dose", "arguments": {"drug": "a"}}\n</tool_call><|im_end|>',
        "<think>\nso\n</think>\n\n400 mg.<|im_end|>",
    ]


@pytest.mark.parametrize("in_content", [True, False])
def test_a_template_that_writes_no_thought_at_all_is_trained_to_think_where_its_prompt_asks_to(in_content):
    tokenizer = tokenizer_of("deepseek_r1")
    messages = THOUGHTS
    if in_content:
        messages = [said(m["role"], f"<think>\n{m['reasoning']}\n</think>\n\n{m['content']}" if "reasoning" in m
                         else m["content"]) for m in THOUGHTS]  # fmt: skip
    rows = rows_of(messages, resolve_template(None, tokenizer), tokenizer)
    assert [tokenizer.decode(ids) for ids, _ in rows] == [
        "<｜begin▁of▁sentence｜><｜User｜>Q1<｜Assistant｜><think>\nT1, 想\n</think>\n\nA1<｜end▁of▁sentence｜>",
        "<｜begin▁of▁sentence｜><｜User｜>Q1<｜Assistant｜>\n\nA1<｜end▁of▁sentence｜><｜User｜>Q2<｜Assistant｜><think>\n"
        "T2\n\nthen\n</think>\n\nA2<｜end▁of▁sentence｜>",
    ]
    assert trained_texts(tokenizer, *rows[1]) == ["T2\n\nthen\n</think>\n\nA2<｜end▁of▁sentence｜>"]


def test_without_a_thought_in_the_data_an_opened_thought_is_closed_at_once():
    tokenizer = tokenizer_of("qwq")
    rows = rows_of(SHAPES["single"], resolve_template(None, tokenizer), tokenizer)
    assert trained_texts(tokenizer, *rows[0]) == ["\n</think>\n\nAt most 4 g a day.<|im_end|>"]


def test_a_template_that_knows_no_thoughts_keeps_them_in_the_answer_as_chat_does():
    tokenizer = tokenizer_of("qwen25")
    (row,) = rows_of(THOUGHTS, resolve_template(None, tokenizer), tokenizer)
    assert trained_texts(tokenizer, *row) == [
        "<think>\nT1, 想\n</think>\n\nA1<|im_end|>",
        "<think>\nT2\n\nthen\n</think>\n\nA2<|im_end|>",
    ]


@pytest.mark.parametrize("name", [name for name in FAMILIES if not FAMILIES[name].writes_end])
def test_where_nothing_ends_an_answer_it_is_trained_to_end_with_eos_and_chat_stops_at_the_next_question_too(name):
    tokenizer = tokenizer_of(name)
    template = resolve_template(None, tokenizer)
    question = {"baichuan2": "<reserved_106>"}.get(name, "<|user|>")
    assert template.stop_words == (tokenizer.eos_token, question)
    for row in rows_of(SHAPES["turns"], template, tokenizer):
        assert trained_texts(tokenizer, *row)[-1].endswith(tokenizer.eos_token)


def test_the_token_that_ends_a_turn_is_trained_and_not_the_one_that_ends_the_text():
    tokenizer = tokenizer_of("phi3")
    (row,) = rows_of(SHAPES["single"], resolve_template(None, tokenizer), tokenizer)
    assert tokenizer.decode(row[0]).endswith("day.<|end|>\n<|endoftext|>")
    assert trained_texts(tokenizer, *row) == ["At most 4 g a day.<|end|>"]


# -- nothing is left out in silence ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "left_out"), [("zephyr", "tool definitions"), ("internlm2", "tool definitions")])
def test_tools_that_a_template_does_not_write_are_an_error(name, left_out):
    tokenizer = tokenizer_of(name)
    with pytest.raises(DataError, match=f"leaves out the {left_out}") as fault:
        rows_of(TOOL_LOOP, resolve_template(None, tokenizer), tokenizer, TOOLS)
    assert "\n" not in str(fault.value) and "布洛芬" not in str(fault.value)


def test_text_beside_tool_calls_that_a_template_does_not_write_is_an_error():
    tokenizer = tokenizer_of("llama31")
    messages = [said("user", "Dose?"), said("assistant", "Let me see.", tool_calls=[call("a")]), said("tool", "400"),
                said("assistant", "400 mg.")]  # fmt: skip
    with pytest.raises(DataError, match="leaves out an answer that stands beside tool calls"):
        rows_of(messages, resolve_template(None, tokenizer), tokenizer, TOOLS)


def test_a_system_text_is_refused_where_the_template_refuses_it():
    tokenizer = tokenizer_of("gemma2")
    with pytest.raises(DataError, match="System role not supported"):
        rows_of(SHAPES["system"], resolve_template(None, tokenizer), tokenizer)
