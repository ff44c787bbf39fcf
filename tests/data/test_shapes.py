"""Records written in a shape come back as they were, or are refused; and `medtune data convert --to`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.cli import main
from medtune.data.map_fns import apply_map_fn, resolve_map_fn
from medtune.data.records import Conversation, Message, Preference, Row, to_record
from medtune.data.shapes import SHAPES, to_shape
from medtune.data.structured import has_empty_answer
from medtune.errors import DataError, UsageError

PLAIN = st.text("ab 发热.?\n", min_size=1).filter(str.strip)
ANY = st.text(max_size=12) | st.sampled_from(
    ["<nooutput>", "### Human: q### Assistant: a", "<user>: a <bot>: b", "None"]
)
JSON = st.dictionaries(st.sampled_from(["drug", "dose"]), st.integers() | PLAIN, max_size=2)
CALLS = st.lists(st.fixed_dictionaries({"name": st.just("look"), "arguments": JSON}), min_size=1, max_size=2)
TOOLS = st.sampled_from([(), ({"type": "function", "function": {"name": "look", "parameters": {}}},)])


def back(fields):
    row = Row(fields, "a:1")
    return apply_map_fn(resolve_map_fn(None, row), row)


@st.composite
def dialogues(draw, texts, rich=True):
    """Messages by turns, from a user's to an assistant's; rich ones call tools, reason and switch answers off."""
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(texts)))
        if rich and draw(st.booleans()):
            calls = tuple(draw(CALLS))
            messages.append(Message("assistant", draw(st.just("") | texts), True, calls, draw(st.just("") | texts)))
            messages += [Message("tool", draw(texts)) for _ in calls]
        trained, reasoning = (draw(st.booleans()), draw(st.just("") | texts)) if rich else (True, "")
        messages.append(Message("assistant", draw(texts), trained, (), reasoning))
    return tuple(messages)


@st.composite
def records(draw, texts):
    if draw(st.booleans()):
        *prompt, _ = (Message(m.role, m.content, False, m.tool_calls, m.reasoning) for m in draw(dialogues(texts)))
        chosen, rejected = ((Message("assistant", draw(texts), True),) for _ in range(2))
        return Preference(tuple(prompt), chosen, rejected, "a:1", draw(TOOLS))
    if draw(st.integers(0, 4)) == 0:
        return Conversation((Message("assistant", draw(texts), True),), "a:1")
    label = draw(st.sampled_from([None, True, False]))
    return Conversation(draw(dialogues(texts, draw(st.booleans()))), "a:1", draw(TOOLS), label)


def written(record, shape):
    try:
        return to_shape(record, shape)
    except DataError:
        return None


@given(records(PLAIN | ANY), st.sampled_from(list(SHAPES)), st.sampled_from(list(SHAPES)))
def test_a_row_goes_to_another_shape_and_back_unchanged_or_is_refused(record, one, other):
    first, second = written(record, one), written(record, other)
    if first is None or second is None:
        return
    json.dumps(first), json.dumps(second)
    there = back(json.loads(json.dumps(first)))
    assert there == record
    again = back(to_shape(there, other))
    assert to_shape(again, one) == first


@given(dialogues(PLAIN, rich=False))
def test_a_plain_dialogue_is_held_by_every_shape_of_conversations(messages):
    for shape in ("conversation", "messages", "sharegpt", "alpaca"):
        assert back(to_shape(Conversation(messages, "a:1"), shape)).messages == messages


@given(records(PLAIN))
def test_plain_texts_are_refused_only_for_what_the_line_names(record):
    names = {name for name in SHAPES if written(record, name) is not None}
    pair = isinstance(record, Preference)
    assert ("preference" in names) is pair
    assert ("messages" in names) is not pair
    assert ("kto" in names) is (not pair and record.label is not None)
    assert ("text" in names) is (not pair and len(record.messages) == 1)
    for name in set(SHAPES) - names:
        with pytest.raises(DataError, match=r"a:1: the shape '\w+' (would lose .*|wants .*)\.$"):
            to_shape(record, name)


CALL = {"role": "assistant", "content": "", "tool_calls": [{"name": "look", "arguments": {"drug": "aspirin"}}]}
ASKED = {"role": "user", "content": "q"}


def talk(*messages, **more):
    return to_record({"messages": list(messages), **more}, "a:1")


ANSWER = {"role": "assistant", "content": "a"}
RICH = talk(ASKED, {**CALL, "reasoning": "So."}, {"role": "tool", "content": "r"}, {**ANSWER, "weight": 0}, label=True)


@pytest.mark.parametrize(
    ("record", "shape", "message"),
    [
        (
            RICH,
            "alpaca",
            "would lose a label (KTO), an answer that is not trained on, reasoning, tools. Use --to messages or kto.",
        ),
        (RICH, "sharegpt", "would lose an answer that is not trained on, reasoning."),
        (
            talk(ASKED, ANSWER),
            "text",
            "would lose a dialogue. Use --to conversation or messages or sharegpt or alpaca.",
        ),
        (talk(ASKED, ANSWER), "preference", "wants a better and a worse answer; the row has one answer."),
        (talk(ASKED, ANSWER), "kto", "wants a label, good or bad; the row has none."),
        (
            talk(ASKED, ANSWER, ASKED),
            "alpaca",
            "would lose a question without an answer. Use --to messages or sharegpt.",
        ),
        (
            to_record({"prompt": [ASKED], "chosen": [ANSWER], "rejected": [ANSWER]}, "a:1"),
            "messages",
            "would lose a pair of answers. Use --to preference.",
        ),
    ],
)
def test_the_line_says_what_would_be_lost_and_where_to_go(record, shape, message):
    with pytest.raises(DataError) as fault:
        to_shape(record, shape)
    assert str(fault.value).startswith(f"a:1: the shape {shape!r} ")
    assert message in str(fault.value)


def test_a_marker_in_a_text_is_refused_where_it_would_be_read_as_one():
    with pytest.raises(DataError, match="would not come back from the shape 'alpaca' as it is"):
        to_shape(talk({"role": "user", "content": "<user>: q"}, ANSWER), "alpaca")
    assert to_shape(talk({"role": "user", "content": "<user>: q"}, ANSWER), "messages")


def test_an_empty_question_in_a_dialogue_is_refused_where_it_has_no_place():
    with pytest.raises(DataError, match="would not come back from the shape 'conversation' as it is"):
        to_shape(talk(ASKED, ANSWER, {"role": "user", "content": ""}, ANSWER), "conversation")


def test_openais_form_has_what_openai_asks_for():
    messages = to_shape(RICH, "messages")["messages"]
    assert messages[1]["tool_calls"] == [
        {"id": "call_0", "type": "function", "function": {"name": "look", "arguments": '{"drug": "aspirin"}'}}
    ]
    assert messages[2] == {"role": "tool", "content": "r", "tool_call_id": "call_0"}
    assert messages[3] == {"role": "assistant", "content": "a", "weight": 0}


def test_the_other_forms_are_the_usual_ones():
    plain = talk({"role": "system", "content": "s"}, ASKED, ANSWER, {"role": "user", "content": "q2"}, ANSWER)
    assert to_shape(plain, "alpaca") == {
        "instruction": "q2",
        "input": "",
        "output": "a",
        "history": [["q", "a"]],
        "system": "s",
    }
    assert to_shape(talk(ASKED, CALL, {"role": "tool", "content": "r"}, ANSWER), "sharegpt")["conversations"] == [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": '{"name": "look", "arguments": {"drug": "aspirin"}}'},
        {"from": "observation", "value": "r"},
        {"from": "gpt", "value": "a"},
    ]
    assert to_shape(to_record({"conversation": [{"input": "", "output": "t"}]}), "text") == {"text": "t"}


def test_what_an_assistant_says_before_a_call_stays_in_sharegpt():
    said = talk(ASKED, {**CALL, "content": "I look."}, {"role": "tool", "content": "r"}, ANSWER)
    turns = to_shape(said, "sharegpt")["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "gpt", "function_call", "observation", "gpt"]


def test_an_unknown_shape_gets_the_nearest():
    with pytest.raises(UsageError, match=r"unknown shape 'mesages'\. Did you mean 'messages'"):
        to_shape(RICH, "mesages")


def test_an_answer_that_calls_a_tool_is_not_empty_and_a_blank_one_of_a_pair_is():
    assert not has_empty_answer(talk(ASKED, CALL, {"role": "tool", "content": "r"}, ANSWER))
    assert has_empty_answer(talk(ASKED, {"role": "assistant", "content": " "}))
    assert has_empty_answer(talk(ASKED, ANSWER, ASKED))
    pair = {"prompt": [ASKED], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": None}]}
    assert has_empty_answer(to_record(pair))
    assert not has_empty_answer(to_record({**pair, "rejected": [ANSWER]}))


@pytest.fixture
def in_tmp_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def lines(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.mark.usefixtures("in_tmp_path")
def test_convert_takes_pairs_there_and_back(capsys):
    Path("rm.json").write_text(
        json.dumps([{"instruction": "q", "input": "", "output": ["a", "b", "c"], "history": []}])
    )
    assert main(["data", "convert", "rm.json", "pairs.jsonl", "--to", "preference", "--system", "s"]) == 0
    assert "pairs.jsonl: 1 pairs from rm.json" in capsys.readouterr().out
    (pair,) = lines("pairs.jsonl")
    assert [m["content"] for part in ("prompt", "chosen", "rejected") for m in pair[part]] == ["s", "q", "a", "c"]
    assert main(["data", "convert", "pairs.jsonl", "sft.jsonl"]) == 2
    assert "would lose a pair of answers. Use --to preference." in capsys.readouterr().err
    assert main(["data", "convert", "pairs.jsonl", "sft.jsonl", "--map-fn", "chosen", "--to", "sharegpt"]) == 0
    assert [turn["value"] for turn in lines("sft.jsonl")[0]["conversations"]] == ["s", "q", "a"]


@pytest.mark.usefixtures("in_tmp_path")
def test_convert_counts_rows_with_nothing_to_learn_and_writes_nothing_if_all_are(capsys):
    rows = [{"prompt": "q", "completion": "a", "label": label} for label in (True, False, False)]
    Path("kto.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "convert", "kto.jsonl", "good.jsonl", "--map-fn", "chosen"]) == 0
    told = capsys.readouterr().out
    assert "good.jsonl: 1 conversations" in told
    assert "left out 2 rows: the answer is labelled as a bad one" in told
    Path("bad.jsonl").write_text("\n".join(map(json.dumps, rows[1:])))
    assert main(["data", "convert", "bad.jsonl", "none.jsonl", "--map-fn", "chosen"]) == 2
    assert "no row to convert (the answer is labelled as a bad one); nothing to write" in capsys.readouterr().err
    assert not Path("none.jsonl").exists()


@pytest.mark.usefixtures("in_tmp_path")
def test_convert_says_how_many_rows_had_which_format(capsys):
    rows = [{"instruction": "q", "output": "a"}] * 2 + [{"question": "q", "answer": "a"}]
    Path("two.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["data", "convert", "two.jsonl", "o.jsonl"]) == 0
    assert "rows by format: alpaca 2, question_answer 1" in capsys.readouterr().out


@pytest.mark.usefixtures("in_tmp_path")
def test_convert_keeps_a_closing_question_where_the_shape_has_a_place_for_it(capsys):
    said = [{"role": role, "content": "x"} for role in ("user", "assistant", "user")]
    Path("a.jsonl").write_text(json.dumps({"messages": said}))
    assert main(["data", "convert", "a.jsonl", "b.jsonl"]) == 2
    assert "1 of 1 rows have an empty answer: a.jsonl:1" in capsys.readouterr().err
    assert main(["data", "convert", "a.jsonl", "b.jsonl", "--to", "sharegpt"]) == 0
    assert len(lines("b.jsonl")[0]["conversations"]) == 3


@pytest.mark.usefixtures("in_tmp_path")
def test_convert_refuses_an_unknown_shape_before_it_reads(capsys):
    assert main(["data", "convert", "missing.jsonl", "b.jsonl", "--to", "mesages"]) == 2
    assert "Did you mean 'messages'" in capsys.readouterr().err
