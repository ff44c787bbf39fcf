"""Multiple choice: options in the question, letter and text in the answer, in the language of the question."""

from __future__ import annotations

import pytest

from medtune.data.map_fns import DATASET_FORMATS, apply_map_fn, resolve_map_fn
from medtune.data.records import Row
from medtune.errors import DataError


def asked_and_answered(fields, name=None):
    row = Row(fields, "a:1")
    user, assistant = apply_map_fn(resolve_map_fn(name, row), row).messages
    return user.content, assistant.content


def test_an_english_question_lists_its_options_and_the_answer_ends_with_the_explanation():
    row = {
        "question": "Which is an NSAID?",
        "opa": "Aspirin",
        "opb": "Insulin",
        "opc": "Heparin",
        "opd": "Iron",
        "cop": 4,
    }
    question, answer = asked_and_answered({**row, "exp": " It is not. ", "choice_type": "multi"})
    assert question == "Which is an NSAID?\nA. Aspirin\nB. Insulin\nC. Heparin\nD. Iron\nChoose the correct option."
    assert answer == "D. Iron\n\nExplanation: It is not."


def test_a_chinese_question_is_asked_in_chinese():
    row = {"id": "0", "question": "核心问题是____", "A": "甲", "B": "乙", "C": "丙", "D": "丁", "answer": "B"}
    question, answer = asked_and_answered({**row, "explanation": "1. 乙。"})
    assert question == "核心问题是____\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n请选出正确的选项。"
    assert answer == "B. 乙\n\n解析：1. 乙。"


@pytest.mark.parametrize(("kind", "answer"), [("多项选择题", "A"), ("单项选择题", "AB"), ("", "A,B")])
def test_cmb_asks_for_several_options_where_several_may_be_right_and_leaves_out_empty_ones(kind, answer):
    row = {
        "question": "属于",
        "option": {"A": "甲", "B": "乙", "C": "", "D": None},
        "answer": answer,
        "question_type": kind,
    }
    question, said = asked_and_answered(row)
    assert question == "属于\nA. 甲\nB. 乙\n请选出所有正确的选项。"
    assert said == "A. 甲" + ("\nB. 乙" if "B" in answer else "")


def test_the_cases_of_cmb_become_dialogues_that_begin_with_the_case():
    row = {
        "id": "0",
        "title": "t",
        "description": "病史",
        "QA_pairs": [{"question": "一", "answer": "1"}, {"question": "二", "answer": "2"}],
    }
    messages = apply_map_fn(resolve_map_fn(None, Row(row, "a:1")), Row(row, "a:1")).messages
    assert [m.content for m in messages] == ["病史\n一", "1", "二", "2"]


MCQ = {"question": "q?", "opa": "1", "opb": "2", "opc": "3", "opd": "4"}


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"question": "q?", "A": "1", "B": "2", "C": "3", "D": "4"}, ""),
        ({**MCQ, "cop": None}, ""),
        (MCQ, ""),
        ({**MCQ, "cop": 2.0}, "B. 2"),
        ({**MCQ, "cop": "3"}, "C. 3"),
        ({"question": "q?", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B"}, "B. y"),
        (
            {"question": "q?", "options": [{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "answer_idx": "A"},
            "A. x",
        ),
        ({"question": "q?", "choices": ["x", "y", "z"], "answer": 2, "subject": "anatomy"}, "C. z"),
        ({"A": "q?", "B": "w", "C": "x", "D": "y", "E": "z", "F": "C"}, "C. y"),
        ({"": "0", "Question": "q?", "A": "w", "B": "x", "C": "y", "D": "z", "Answer": "D"}, "D. z"),
    ],
)
def test_every_set_gives_the_letter_and_its_text_or_nothing_where_no_answer_is_published(row, answer):
    assert asked_and_answered(row)[1] == answer


def test_pubmedqa_gives_its_contexts_and_wants_a_reason():
    row = {"QUESTION": "Does it?", "CONTEXTS": ["c1", "c2"], "LONG_ANSWER": "It does.", "final_decision": "yes"}
    assert asked_and_answered(row) == ("c1\nc2\nDoes it?\nAnswer yes, no or maybe, and say why.", "Yes. It does.")
    assert asked_and_answered({**row, "final_decision": None}) == ("c1\nc2\nDoes it?", "It does.")


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({**MCQ, "cop": 0}, "medmcqa"),
        ({**MCQ, "cop": 5}, "medmcqa"),
        ({**MCQ, "cop": 4}, "medmcqa_from_zero"),
        ({**MCQ, "cop": 1.5}, "medmcqa"),
        ({**MCQ, "cop": "secret"}, "medmcqa"),
        ({"question": "q?", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "E"}, "ceval"),
        ({"question": "q?", "choices": ["x"], "answer": 1}, "choices"),
    ],
)
def test_an_answer_that_is_no_option_is_a_fault_of_the_row(row, name):
    with pytest.raises(DataError, match=r"a:1: the answer is no") as fault:
        apply_map_fn(DATASET_FORMATS[name], Row(row, "a:1"))
    assert "secret" not in str(fault.value)


def test_medmcqa_counts_from_zero_where_the_first_rows_hold_a_zero():
    head = [Row({**MCQ, "cop": cop}, f"a:{i}") for i, cop in enumerate((3, 1, 0))]
    from_zero, from_one = resolve_map_fn(None, *head), resolve_map_fn(None, *head[:2])
    assert [apply_map_fn(from_zero, row).messages[1].content for row in head] == ["D. 4", "B. 2", "A. 1"]
    assert [apply_map_fn(from_one, row).messages[1].content for row in head[:2]] == ["C. 3", "A. 1"]
    with pytest.raises(DataError, match=r"a:2: .*wanted 1 to 4.*medmcqa_from_zero"):
        apply_map_fn(from_one, head[2])


def test_the_hidden_answers_of_the_hubs_test_part_are_empty():
    row = Row({**MCQ, "cop": -1}, "a:1")
    assert apply_map_fn(resolve_map_fn(None, row), row).messages[1].content == ""
