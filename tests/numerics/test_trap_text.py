"""Numerics traps between text and tokens: masks, truncation, the end of an answer; see docs/design/numerics.md."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from helpers import tiny_llama

from medtune.data.collate import flatten
from medtune.data.encode import encode, encode_prompt
from medtune.data.pipeline import build_dataset
from medtune.data.records import Conversation, Message
from medtune.data.templates import PROMPT_TEMPLATE, resolve_template
from medtune.errors import DataError
from medtune.generate import Sampling, add_stops, generate
from medtune.models import attention
from medtune.models.sft import SupervisedFinetune

QUESTIONS = ["What is aspirin for?", "头孢可以和酒一起吗？", "How much\n\naspirin {a}?", " a ", "USER: b ASSISTANT:"]
ANSWERS = ["Pain and fever.", "不可以，会引起双硫仑样反应。", "1.\n2. at most 4 g", "\nyes 😷", "c"]


def fixtures(with_system):
    """50 conversations of one to three turns; of some only a part of the answers is trained."""
    made = []
    for i in range(50):
        system = [Message("system", "你是医生。" if i % 4 else "Be brief.")] if with_system and i % 2 else []
        turns = []
        for turn in range(1 + i % 3):
            turns.append(Message("user", QUESTIONS[(i + turn) % 5]))
            turns.append(Message("assistant", ANSWERS[(i // 5 + turn) % 5], trained=turn == i % 3 or i % 7 > 0))
        made.append(Conversation((*system, *turns), f"rows.jsonl:{i + 1}"))
    return made


def trained_texts(sample, tokenizer):
    """Each run of trained tokens as text."""
    pairs = zip(sample["labels"].tolist(), sample["input_ids"].tolist(), strict=True)
    runs = [[token for _, token in run] for on, run in itertools.groupby(pairs, lambda pair: pair[0] >= 0) if on]
    return [tokenizer.decode(run, clean_up_tokenization_spaces=False) for run in runs]


# ---------------------------------------------------------------- T6, T7, T9


@pytest.mark.parametrize("name", [None, *PROMPT_TEMPLATE])
def test_the_trained_tokens_are_the_trained_answers_and_their_ends_letter_by_letter(name, tiny_tokenizer):
    """T6: fails when the mask is off by one, trains a prompt's or header's token, or leaves out an answer's end."""
    template = resolve_template(name, tiny_tokenizer)
    end = "<|im_end|>" if name is None else template.end
    rows = fixtures(with_system=name is None or bool(template.system))
    samples, _ = encode(rows, template, tiny_tokenizer, None)
    assert len(samples) == 50
    for sample, row in zip(samples, rows, strict=True):
        wanted = [message.content + end for message in row.messages if message.trained]
        assert trained_texts(sample, tiny_tokenizer) == wanted


STOCK = {
    "llama 3.1": "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}"
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "gemma": "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
}


@pytest.mark.parametrize("name", STOCK)
def test_a_stock_chat_template_without_generation_marks_still_trains_its_answers(name, tiny_tokenizer):
    """T7: fails when the mask comes from `{% generation %}` alone, which stock templates lack: all zeros."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = STOCK[name]
    data = build_dataset([{"question": QUESTIONS[0], "answer": answer} for answer in ANSWERS], tokenizer, 256)
    wanted = [[answer.strip() + "<|im_end|>"] for answer in ANSWERS]
    assert [trained_texts(sample, tokenizer) for sample in data.samples] == wanted
    share = data.samples.num_trained.sum() / data.samples.lengths.sum()
    assert f"({share:.1%})" in data.report.lines()[1]


def test_a_data_set_in_which_nothing_is_trained_is_a_fault_and_not_an_idle_run(tiny_tokenizer):
    """T7, T8: fails when samples without a trained token are kept; the run would train on nothing, loss 0 / 0."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "loss": False}]
    with pytest.raises(DataError, match="no sample is left to train on: 3 rows read, left out: 3 no trained token"):
        build_dataset([{"messages": turns}] * 3, tiny_tokenizer, 64)


def test_a_cut_answer_is_counted_told_and_gets_no_end(tiny_tokenizer):
    """T9: fails when cut rows are not counted, an end token is put behind a cut, or cutting is what happens unasked."""
    rows = [{"question": "q", "answer": "twice a day " * n} for n in (1, 2, 40, 50)]
    cut = build_dataset(rows, tiny_tokenizer, 32, overflow="truncate")
    assert "truncated 2, split 0" in cut.report.lines()
    ends = [int(sample["input_ids"][-2]) == tiny_tokenizer.eos_token_id for sample in cut.samples]
    assert ends == [int(tiny_tokenizer.eos_token_id in sample["labels"]) == 1 for sample in cut.samples]
    assert ends == [True, True, False, False]
    assert len(build_dataset(rows, tiny_tokenizer, 32).samples) == 2


# ---------------------------------------------------------------- T12


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False], ids=["packed rows", "padded rows"])
def test_after_60_steps_of_overfitting_every_answer_ends_where_it_was_trained_to_end(tiny_tokenizer, packed):
    """T12: fails when the end token is not trained, for one because it is the padding token and padding is masked."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token
    template = resolve_template(None, tokenizer)
    rows = [
        Conversation((Message("user", f"Question {i}?"), Message("assistant", f"{'so ' * (i % 4)}{i}.", trained=True)))
        for i in range(20)
    ]
    samples, _ = encode(rows, template, tokenizer, None)
    llm = tiny_llama(vocab_size=12288, hidden_size=32, pad_token_id=tokenizer.eos_token_id)
    llm.set_attn_implementation(attention.NAME if packed else "eager")
    made = SupervisedFinetune(llm, None, False, "fp32").train()
    made.packed_rows = packed
    optimizer = torch.optim.AdamW(made.parameters(), lr=1e-2, weight_decay=0)
    micro = flatten(list(samples))
    for _ in range(60):
        optimizer.zero_grad()
        (made(micro).loss_sum / len(micro.targets)).backward()
        optimizer.step()
    prompts = [encode_prompt(row.messages[:1], template, tokenizer) for row in rows]
    sampling = add_stops(Sampling(16, temperature=0), made.llm, tokenizer, template)
    answers = generate(made.llm, tokenizer, prompts, sampling)
    assert [answer.finish_reason for answer in answers] == ["stop"] * 20
    assert all(answer.text.endswith(".") for answer in answers)


# ---------------------------------------------------------------- T14


def test_in_fp32_a_batch_of_8_equals_each_alone_and_an_answer_computed_without_cache(tiny_tokenizer):
    """T14: fails when positions count the padding, the mask is not passed on, or the cache loses its place.

    In bf16 all of these differ by rounding, and an answer may change; docs/design/numerics.md has the share.
    """
    model = tiny_llama(vocab_size=12288, initializer_range=0.3).eval()
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(10, 12288, (n,), generator=generator).tolist() for n in (3, 17, 1, 9, 30, 5, 12, 24)]
    sampling = Sampling(max_new_tokens=12, temperature=0)
    together = [answer.token_ids for answer in generate(model, tiny_tokenizer, prompts, sampling)]
    assert together == [generate(model, tiny_tokenizer, [p], sampling)[0].token_ids for p in prompts]
    for prompt, answer in zip(prompts, together, strict=True):
        with torch.no_grad():
            whole = model(torch.tensor([prompt + answer]), use_cache=False).logits[0]
        assert whole[len(prompt) - 1 : -1].argmax(-1).tolist() == answer
    assert len(set(map(tuple, together))) == 8
