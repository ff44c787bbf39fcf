"""Map functions: each shape to its conversation; a misfit says what would fit."""

from __future__ import annotations

import ast
import doctest
import inspect

import pytest

from medtune.data import (
    chat_map_fns,
    choice_map_fns,
    detection,
    map_fns,
    preference_map_fns,
    split,
    structured,
    subject_map_fns,
    tool_map_fns,
    turns,
)
from medtune.data.map_fns import DATASET_FORMATS, FORMATS, apply_map_fn, detect, resolve_map_fn
from medtune.data.records import Message, Row, to_conversation
from medtune.data.templates import SYSTEM_TEMPLATE
from medtune.errors import DataError

XTUNER_NAMES = {
    *("alpaca", "alpaca_zh", "arxiv", "code_alpaca", "colors", "crime_kg_assitant", "default", "law_reference"),
    *("medical", "msagent_react", "oasst1", "openai", "openorca", "pretrain", "sql", "stack_exchange", "tiny_codes"),
    "wizardlm",
}


SHAPES = (chat_map_fns, choice_map_fns, preference_map_fns, subject_map_fns, tool_map_fns)


@pytest.mark.parametrize("module", [*SHAPES, detection, map_fns, split, structured], ids=lambda module: module.__name__)
def test_doctests_hold(module):
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
    assert results.attempted > 0


@pytest.mark.parametrize("name", DATASET_FORMATS)
def test_every_map_function_shows_a_row_before_and_after(name):
    assert DATASET_FORMATS[name].__name__ == f"{name}_map_fn"
    assert ">>> " in inspect.getdoc(DATASET_FORMATS[name])


def test_every_map_function_of_the_modules_has_a_name():
    written = {name for module in SHAPES for name in vars(module) if name.endswith("_map_fn")}
    assert written | {"chosen_map_fn", "left_out_map_fn"} == {f"{name}_map_fn" for name in DATASET_FORMATS}


def test_the_names_of_xtuner_are_all_there():
    assert set(DATASET_FORMATS) >= XTUNER_NAMES


def test_no_map_function_can_run_code_of_the_data():
    for module in (*SHAPES, detection, map_fns, turns):
        calls = [node.func for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)]
        assert not {call.id for call in calls if isinstance(call, ast.Name)} & {"eval", "exec", "compile"}
    with pytest.raises(ValueError, match="malformed"):
        DATASET_FORMATS["msagent_react"]({"conversations": "[__import__('os').getpid()]"})


ROWS = {
    "conversation": {"conversation": [{"input": "q", "output": "a"}]},
    "openai": {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    "msagent_react": {"conversations": "[{'from': 'user', 'value': 'q'}, {'from': 'assistant', 'value': 'a'}]"},
    "alpaca": {"instruction": "q", "input": "", "output": "a"},
    "alpaca_zh": {"instruction_zh": "q", "input_zh": "", "output_zh": "a"},
    "openorca": {"system_prompt": "", "question": "q", "response": "a"},
    "question_answer": {"question": "q", "answer": "a"},
    "stack_exchange": {"question": "q", "response": "a"},
    "prompt_response": {"prompt": "q", "completion": "a"},
    "default": {"input": "q", "output": "a"},
    "oasst1": {"text": "### Human: q### Assistant: a"},
    "pretrain": {"text": "a"},
}


@pytest.mark.parametrize("name", ROWS)
def test_each_shape_is_detected_with_other_columns_beside_it(name):
    row = Row({"id": 7, "department": "cardiology", **ROWS[name]}, "a.jsonl:1")
    assert detect(row.fields) == name
    conversation = apply_map_fn(resolve_map_fn(None, row), row)
    answer = "Final Answer: a" if name == "msagent_react" else "a"
    question = () if name == "pretrain" else (Message("user", "q"),)
    assert conversation.messages == (*question, Message("assistant", answer, trained=True))
    assert conversation.origin == "a.jsonl:1"


def test_detection_never_chooses_a_format_that_brings_a_system_text():
    brings = {name for name, fn in DATASET_FORMATS.items() if "brings SYSTEM_TEMPLATE" in (fn.__doc__ or "")}
    assert len(brings) == 8
    assert not brings & set(map_fns.DETECTED)


@pytest.mark.parametrize(
    ("name", "row", "system"),
    [
        ("medical", {"instruction": "q", "output": "a"}, "medical"),
        ("sql", {"context": "c", "question": "q", "answer": "a"}, "sql"),
        ("arxiv", {"abstract": "q", "title": "a"}, "arxiv_gentile"),
        ("code_alpaca", {"prompt": "q", "completion": "a"}, "coder"),
        ("tiny_codes", {"prompt": "q", "response": "a"}, "coder"),
        ("colors", {"description": "n: q", "color": "a"}, "colorist"),
        ("law_reference", {"question": "q", "answer": "a"}, "lawyer"),
        ("crime_kg_assitant", {"input": "q", "output": "a"}, "lawyer"),
    ],
)
def test_subject_formats_bring_their_system_text(name, row, system):
    messages = to_conversation(DATASET_FORMATS[name](row)).messages
    assert messages[0] == Message("system", SYSTEM_TEMPLATE[system])


def test_headings_inside_an_oasst_answer_survive_and_a_preface_is_the_system_text():
    text = "Be kind.\n### Human: q1\n### Assistant: # One\n### Two\ntext ### three### Human: q2### Assistant: a2"
    assert to_conversation(DATASET_FORMATS["oasst1"]({"text": text})).messages == (
        Message("system", "Be kind."),
        Message("user", "q1"),
        Message("assistant", "# One\n### Two\ntext ### three", True),
        Message("user", "q2"),
        Message("assistant", "a2", True),
    )


@pytest.mark.parametrize(
    ("switch", "trained"),
    [
        *[
            ({}, True),
            ({"loss": True}, True),
            ({"loss": "true"}, True),
            ({"loss": None}, True),
            ({"weight": 1.0}, True),
        ],
        *[({"loss": False}, False), ({"loss": "False"}, False), ({"weight": 0}, False)],
    ],
)
def test_openai_loss_may_be_absent_boolean_text_or_a_weight(switch, trained):
    rows = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **switch}]}
    assert to_conversation(DATASET_FORMATS["openai"](rows)).messages[1].trained is trained


def test_openai_joins_user_messages_and_text_parts():
    row = {
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "user", "content": [{"type": "text", "text": "t"}, {"type": "text", "text": "wo"}]},
            {"role": "assistant", "content": "a"},
        ]
    }
    assert to_conversation(DATASET_FORMATS["openai"](row)).messages[0].content == "one\ntwo"


def test_alpaca_no_output_is_an_empty_answer_and_missing_history_is_none():
    row = {"instruction": "q", "input": None, "output": "<nooutput>", "history": None, "system": "s"}
    assert DATASET_FORMATS["alpaca"](row) == {"conversation": [{"system": "s", "input": "q", "output": ""}]}


def test_sharegpt_takes_a_system_column_and_leaves_unknown_roles_to_validation():
    turns = [{"from": "human", "value": "q"}, {"from": "nurse", "value": "n"}]
    row = Row({"conversations": turns, "system_prompt": "s"}, "a.jsonl:3")
    assert DATASET_FORMATS["sharegpt"](row.fields)["messages"][0] == {"role": "system", "content": "s"}
    with pytest.raises(DataError, match=r"a\.jsonl:3: messages\[2\]: unknown role 'nurse'"):
        apply_map_fn(DATASET_FORMATS["sharegpt"], row)


def test_msagent_calls_become_react_turns_of_their_own():
    call = '<|startofthink|>```JSON\n{"api_name": "sky", "parameters": {"城": "杭州"}}\n```<|endofthink|>'
    talk = [
        {"from": "system", "value": "Tools: sky"},
        {"from": "user", "value": "Weather?"},
        {"from": "assistant", "value": f"I look.{call}\n\n<|startofexec|>```JSON\nrain\n```<|endofexec|>\nIt rains."},
        {"from": "user", "value": "Thanks"},
        {"from": "assistant", "value": "Welcome."},
    ]
    first, second, third = DATASET_FORMATS["msagent_react"]({"conversations": talk})["conversation"]
    assert first["system"].startswith("Tools: sky\n")
    assert first["output"] == 'Thought: I look.\nAction: sky\nAction Input: {"城": "杭州"}'
    assert second == {"input": "Response: rain", "output": "Final Answer: It rains."}
    assert third == {"input": "Thanks", "output": "Final Answer: Welcome."}


def test_a_list_where_text_is_wanted_is_named_not_turned_into_text():
    row = Row({"instruction": ["q"], "input": "more", "output": ["a"]}, "a.json[0]")
    with pytest.raises(DataError, match=r"a\.json\[0\]: conversation\[0\]\.input: wanted text, got a list"):
        apply_map_fn(resolve_map_fn("alpaca", row), row)


def test_a_name_is_taken_with_and_without_its_ending():
    row = Row(ROWS["alpaca"], "a.json[0]")
    assert resolve_map_fn("alpaca", row) is resolve_map_fn("alpaca_map_fn", row) is DATASET_FORMATS["alpaca"]


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DataError, match=r"unknown dataset_map_fn 'alpacca'\. Did you mean 'alpaca'"):
        resolve_map_fn("alpacca", Row(ROWS["alpaca"], "a.json[0]"))


@pytest.mark.parametrize("spec", ["alpaca", DATASET_FORMATS["alpaca"]])
def test_a_misfit_names_the_keys_and_the_format_that_fits(spec):
    with pytest.raises(DataError) as fault:
        resolve_map_fn(spec, Row({"question": "secret", "answer": "secret"}, "a.jsonl:1"))
    assert str(fault.value) == (
        "a.jsonl:1: alpaca_map_fn wants 'instruction', 'output', got a row with the keys 'question', 'answer'. "
        "question_answer_map_fn would fit."
    )


def test_a_row_that_fits_nothing_lists_a_dozen_keys_cut_short():
    row = Row({f"column {i} {'secret' * 20}": "x" for i in range(40)}, "a.csv:2")
    with pytest.raises(DataError, match=r"a\.csv:2: no known format fits .*data_columns=dict") as fault:
        resolve_map_fn(None, row)
    assert len(str(fault.value)) < 700


def test_a_map_function_of_the_user_may_return_either_structure_and_its_faults_name_the_row():
    def mine(row):
        return {"messages": [{"role": "user", "content": row["ask"]}, {"role": "assistant", "content": row["say"]}]}

    good = Row({"ask": "q", "say": "a"}, "a.jsonl:1")
    assert apply_map_fn(resolve_map_fn(mine, good), good).messages[0] == Message("user", "q")
    with pytest.raises(DataError, match=r"a\.jsonl:9: mine wants 'say', got a row with the keys 'ask'"):
        apply_map_fn(mine, Row({"ask": "q"}, "a.jsonl:9"))

    def broken(row):
        return int(row["ask"])

    with pytest.raises(DataError, match=r"a\.jsonl:9: broken failed on .* with ValueError") as fault:
        apply_map_fn(broken, Row({"ask": "secret"}, "a.jsonl:9"))
    assert "secret" not in str(fault.value)


def test_a_key_missing_deep_inside_a_row_is_named():
    row = Row({"conversations": [{"from": "human", "text": "q"}]}, "a.jsonl:1")
    with pytest.raises(DataError, match="sharegpt_map_fn misses the key 'value' inside the row"):
        resolve_map_fn("sharegpt", row)


def test_every_format_names_the_keys_it_needs():
    for name, (map_fn, keys) in FORMATS.items():
        for key in keys:
            with pytest.raises((KeyError, DataError)):
                map_fn({other: "x" for other in keys if other != key})
            assert f'"{key}"' in map_fn.__doc__.splitlines()[0], name
