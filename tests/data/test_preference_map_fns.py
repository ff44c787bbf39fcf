"""Preference and KTO rows: every way to write a prompt and its answers gives the same pair."""

from __future__ import annotations

import json

import pytest

from medtune.data.map_fns import DATASET_FORMATS, apply_map_fn, detect, resolve_map_fn
from medtune.data.records import Conversation, Message, Preference, Row, SkippedRow
from medtune.errors import DataError

GOOD, BAD = {"role": "assistant", "content": "good"}, {"from": "gpt", "value": "bad"}
USER = {"role": "user", "content": "q"}
PAIR = Preference(
    (Message("user", "q"),), (Message("assistant", "good", True),), (Message("assistant", "bad", True),), "a:1"
)


def record(fields):
    row = Row(fields, "a:1")
    return apply_map_fn(resolve_map_fn(None, row), row)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("preference", {"prompt": "q", "chosen": "good", "rejected": "bad"}),
        ("preference", {"prompt": [USER], "chosen": [GOOD], "rejected": BAD}),
        ("preference", {"chosen": [USER, GOOD], "rejected": [USER, BAD], "prompt_id": "7"}),
        ("preference", {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 9.0}),
        ("question_pair", {"question": "q", "chosen": "good", "rejected": "bad", "system": ""}),
        ("alpaca_preference", {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"}),
        ("question_preference", {"question": "q", "response_chosen": "good", "response_rejected": "bad"}),
        (
            "question_preference",
            {"question": "q", "response_chosen": "good", "response_rejected": "bad", "history": []},
        ),
        ("sharegpt_preference", {"conversations": [{"from": "human", "value": "q"}], "chosen": GOOD, "rejected": BAD}),
        ("sharegpt_preference", {"messages": [USER], "chosen": "good", "rejected": "bad"}),
        ("ranked", {"instruction": "q", "input": "", "output": ["good", "bad"], "history": []}),
        ("ranked", {"instruction": "q", "input": None, "output": ["good", "so so", "bad"]}),
    ],
)
def test_every_shape_of_a_pair_is_detected_and_read_as_the_same_pair(name, fields):
    assert detect(fields) == name
    assert record(fields) == PAIR


@pytest.mark.parametrize(
    "fields",
    [
        {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
        {"instruction": "q", "input": "", "output": ["good", "bad"]},
        {"question": "q", "response_chosen": "good", "response_rejected": "bad"},
    ],
)
def test_history_and_system_text_stand_before_the_question(fields):
    pair = record({**fields, "history": [["q0", "a0"]], "system": "s"})
    told = [(m.role, m.content, m.trained) for m in pair.prompt]
    assert told == [("system", "s", False), ("user", "q0", False), ("assistant", "a0", False), ("user", "q", False)]


def test_whole_conversations_share_their_prompt_and_keep_what_differs():
    first = [USER, GOOD, {"role": "user", "content": "q2"}]
    pair = record({"chosen": [*first, GOOD], "rejected": [*first, {"role": "assistant", "content": "bad"}]})
    assert [m.content for m in pair.prompt] == ["q", "good", "q2"]
    same = record({"chosen": [USER, GOOD], "rejected": [USER, GOOD]})
    assert same.chosen == same.rejected == PAIR.chosen


def test_tools_come_along():
    tools = '[{"name": "dose", "parameters": {}}]'
    pair = record(
        {"conversations": [{"from": "human", "value": "q"}], "tools": tools, "chosen": "good", "rejected": "bad"}
    )
    assert pair.tools == ({"type": "function", "function": {"name": "dose", "parameters": {}}},)


def judged(scores, first="one", second="two"):
    text = (
        "[Question]\nq\n[1] a document\n\n"
        f"[The Start of Assistant 1's Answer]\n{first}\n[The End of Assistant 1's Answer]\n\n"
        f"[The Start of Assistant 2's Answer]\n{second}\n[The End of Assistant 2's Answer]\n\n[System]\nRate them."
    )
    asked = {"messages": [{"role": "system", "content": "Judge."}, {"role": "user", "content": text}], "functions": []}
    return {"input": json.dumps(asked), "output": json.dumps({"role": "assistant", "content": f"{scores}\n\nBecause."})}


@pytest.mark.parametrize(("scores", "chosen"), [("9 1", "one"), ("1 9", "two"), ("8.5, 9", "two"), (" 10 9.5", "one")])
def test_a_judges_scores_say_which_answer_is_better(scores, chosen):
    pair = record(judged(scores))
    assert pair.chosen[0].content == chosen
    assert {pair.chosen[0].content, pair.rejected[0].content} == {"one", "two"}
    assert [m.content for m in pair.prompt] == ["q\n[1] a document"]


def test_a_tie_is_a_skipped_row_and_a_reply_without_scores_a_fault():
    with pytest.raises(SkippedRow, match=r"a:1: both answers have the same score\.") as tie:
        record(judged("7 7.0"))
    assert tie.value.reason == "both answers have the same score"
    with pytest.raises(DataError, match=r"a:1: scored_pair_map_fn: no two scores at the start of its output") as fault:
        record(judged("Secret is better."))
    assert not isinstance(fault.value, SkippedRow)
    assert "Secret" not in str(fault.value)


def test_a_list_of_one_answer_is_no_ranking():
    with pytest.raises(DataError, match="wanted a list of two or more answers"):
        apply_map_fn(DATASET_FORMATS["ranked"], Row({"instruction": "q", "output": ["good"]}, "a:1"))


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [USER, GOOD], "label": False},
        {"conversations": [{"from": "human", "value": "q"}, GOOD], "label": False},
        {"prompt": "q", "completion": "good", "label": False},
        {"prompt": [USER], "completion": [GOOD], "label": False},
        {"instruction": "q", "input": "", "output": "good", "kto_tag": False},
        {"messages": [USER, GOOD], "kto_tag": False},
    ],
)
def test_every_shape_of_a_labelled_answer_is_detected(fields):
    assert detect(fields) == "kto"
    assert record(fields) == Conversation(
        (Message("user", "q"), Message("assistant", "good", True)), "a:1", label=False
    )


def test_a_label_that_is_no_truth_value_is_a_column_like_any_other():
    assert detect({"messages": [USER, GOOD], "label": "cardiology"}) == "openai"
    assert detect({"instruction": "q", "output": "a", "label": True}) == "alpaca"
    with pytest.raises(DataError, match=r"a:1: kto_map_fn: label: wanted true or false") as fault:
        apply_map_fn(DATASET_FORMATS["kto"], Row({"messages": [USER, GOOD], "label": "secret"}, "a:1"))
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize("label", ["true", "True", 1])
def test_named_kto_reads_labels_as_text_and_numbers(label):
    row = Row({"prompt": "q", "completion": "good", "label": label}, "a:1")
    assert apply_map_fn(DATASET_FORMATS["kto"], row).label is True


def test_chosen_makes_conversations_of_the_good_answers_and_skips_the_bad_ones():
    def chosen(fields):
        return apply_map_fn(resolve_map_fn("chosen", Row(fields, "a:1")), Row(fields, "a:1"))

    good = Conversation((Message("user", "q"), Message("assistant", "good", True)), "a:1")
    assert chosen({"prompt": "q", "chosen": "good", "rejected": "bad"}) == good
    assert chosen({"instruction": "q", "output": ["good", "bad"]}) == good
    assert chosen({"messages": [USER, GOOD], "label": True}) == good
    with pytest.raises(SkippedRow, match="labelled as a bad one"):
        chosen({"messages": [USER, GOOD], "label": False})
    with pytest.raises(DataError, match=r"a:1: chosen_map_fn: no preference or KTO row"):
        chosen({"question": "q", "answer": "a"})
