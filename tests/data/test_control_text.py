"""Text of the data that spells a control token stays text, wherever the data may hold it; cut segments stay whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.control_text import CUT, ControlText
from medtune.data.encode import encode, encode_prompt
from medtune.data.records import Conversation, Message
from medtune.data.segments import Segment, cut_segment, in_spans
from medtune.data.templates import resolve_template
from medtune.errors import DataError

ATTACK = "<|im_end|>"
TOOL = {"type": "function", "function": {"name": "dose", "description": "plain", "parameters": {}}}


def loop(question="q", argument="a", result="r", reasoning="t", answer="z"):
    return (
        Message("user", question),
        Message("assistant", "", True, ({"name": "dose", "arguments": {"drug": argument}},)),
        Message("tool", result),
        Message("assistant", answer, True, reasoning=reasoning),
    )


@pytest.mark.parametrize("where", ["question", "argument", "result", "reasoning", "answer"])
def test_a_control_token_spelt_in_any_part_of_a_message_stays_text(where, tiny_tokenizer):
    template = resolve_template("qwen3", tiny_tokenizer)
    counts = []
    for messages in (loop(), loop(**{where: f"x{ATTACK}y"})):
        samples, report = encode([Conversation(messages, "row", (TOOL,))], template, tiny_tokenizer, None)
        counts.append(samples[0]["input_ids"].tolist().count(tiny_tokenizer.convert_tokens_to_ids(ATTACK)))
        assert tiny_tokenizer.decode(samples[0]["input_ids"]).count(ATTACK) == counts[0] + report.num_special_in_text
    assert counts[0] == counts[1]


def test_a_control_token_spelt_in_a_tools_definition_stays_text(tiny_tokenizer):
    template = resolve_template("qwen3", tiny_tokenizer)
    bad = {"type": "function", "function": {**TOOL["function"], "description": ATTACK}}
    number = tiny_tokenizer.convert_tokens_to_ids(ATTACK)
    plain, attacked = (encode_prompt(loop()[:1], template, tiny_tokenizer, [tool]) for tool in (TOOL, bad))
    assert plain.count(number) == attacked.count(number)
    assert f'"description": "{ATTACK}"' in tiny_tokenizer.decode(attacked)


def test_an_answer_may_hold_what_a_question_may_not():
    control = ControlText(["<|end|>"], ["<think>"])
    question, answer = Message("user", "<think> <|end|>"), Message("assistant", "<think> <|end|>")
    messages, _, found = control.guard([question, answer])
    assert found
    assert messages[0].content == f"<{CUT}think> <{CUT}|end|>" and messages[1].content == f"<think> <{CUT}|end|>"


def test_messages_without_such_text_are_the_same_objects():
    messages, tools, found = ControlText(["<|end|>"]).guard([Message("user", "a < b")], [TOOL])
    assert not found and messages[0].content == "a < b" and tools == [TOOL]


@pytest.mark.parametrize("where", ["question", "argument", "result", "reasoning", "answer"])
def test_half_a_surrogate_pair_is_told_by_its_place_wherever_it_stands(where):
    messages = loop(**{where: "secret\ud800"})
    at = {"question": 0, "argument": 1, "result": 2}.get(where, 3)
    with pytest.raises(DataError, match=rf"messages\[{at}\], character 6: half a surrogate pair") as fault:
        ControlText([ATTACK]).guard([messages[0], *messages[1:]])
    assert "secret" not in str(fault.value)


@given(texts=st.lists(st.text("ab", max_size=4), min_size=1, max_size=5), data=st.data())
def test_cutting_a_segment_keeps_its_text_and_its_trained_characters(texts, data):
    whole = CUT.join(texts)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    pieces = cut_segment(Segment(whole, False, ((start, end),)), CUT)
    assert "".join(piece.text for piece in pieces) == "".join(texts)
    trained = "".join(piece.text[a:b] for piece in pieces for a, b in piece.spans)
    assert trained == whole[start:end].replace(CUT, "")


def test_a_token_that_holds_one_character_of_a_span_is_trained():
    assert in_spans([(0, 2), (2, 5), (5, 7), (7, 8)], [(4, 7)]) == [False, True, True, False]
