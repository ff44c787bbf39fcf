"""Conversations with tools: ShareGPT, OpenAI and MOSS become the same messages."""

from __future__ import annotations

import json

import pytest

from medtune.data.map_fns import apply_map_fn, detect, resolve_map_fn
from medtune.data.records import Message, Row
from medtune.errors import DataError

CALLED = ({"name": "dose", "arguments": {"drug": "aspirin"}},)
CALL = json.dumps(CALLED[0])


def messages(fields, name=None):
    row = Row(fields, "a:1")
    return apply_map_fn(resolve_map_fn(name, row), row).messages


def turns(*pairs):
    return [{"from": name, "value": text} for name, text in pairs]


def test_sharegpts_calls_and_observations_become_tool_calls_and_results():
    talk = turns(("system", "s"), ("human", "q"), ("function_call", CALL), ("observation", "500"), ("gpt", "a"))
    for key in ("conversations", "messages"):
        assert messages({key: talk, "tools": "[]"}) == (
            Message("system", "s"),
            Message("user", "q"),
            Message("assistant", "", True, CALLED),
            Message("tool", "500"),
            Message("assistant", "a", True),
        )


def test_what_the_assistant_says_before_a_call_stays_with_it_and_several_calls_are_a_list():
    talk = turns(("human", "q"), ("gpt", "I look."), ("function_call", f"[{CALL}, {CALL}]"), ("observation", "1"))
    assert messages({"conversations": [*talk, {"from": "observation", "value": "2"}]}) == (
        Message("user", "q"),
        Message("assistant", "I look.", True, CALLED * 2),
        Message("tool", "1"),
        Message("tool", "2"),
    )


@pytest.mark.parametrize(
    "turn",
    [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"type": "function", "function": {"name": "dose", "arguments": '{"drug": "aspirin"}'}}],
        },
        {"role": "assistant", "tool_calls": [{"name": "dose", "arguments": {"drug": "aspirin"}}]},
        {"role": "assistant", "content": "", "function_call": {"name": "dose", "arguments": '{"drug": "aspirin"}'}},
    ],
)
@pytest.mark.parametrize("name", ["tool", "function"])
def test_openais_calls_old_and_new(turn, name):
    said = [
        {"role": "developer", "content": "s"},
        {"role": "user", "content": "q"},
        turn,
        {"role": name, "content": "500"},
    ]
    assert messages({"messages": [*said, {"role": "assistant", "content": "a", "reasoning_content": "so"}]}) == (
        Message("system", "s"),
        Message("user", "q"),
        Message("assistant", "", True, CALLED),
        Message("tool", "500"),
        Message("assistant", "a", True, reasoning="so"),
    )


@pytest.mark.parametrize(
    ("user", "assistant"),
    [("human", "gpt"), ("user", "assistant"), ("human", "bot"), ("client", "counselor"), ("patient", "doctor")],
)
@pytest.mark.parametrize(("role", "text"), [("from", "value"), ("role", "content"), ("role", "value")])
@pytest.mark.parametrize("key", ["conversations", "messages"])
def test_speakers_have_many_names(user, assistant, role, text, key):
    assert messages({key: [{role: user, text: "q"}, {role: assistant, text: "a"}]}) == (
        Message("user", "q"),
        Message("assistant", "a", True),
    )


def test_keys_that_a_table_filled_with_nothing_are_not_there():
    talk = [
        {"from": None, "role": "user", "content": "q", "value": None, "weight": None, "tool_calls": None},
        {"from": None, "role": "assistant", "content": "a", "value": None, "loss": None, "weight": 0.0},
    ]
    assert messages({"messages": talk, "tools": None}) == (Message("user", "q"), Message("assistant", "a", False))


@pytest.mark.parametrize("value", ["secret", '["secret"]', '{"arguments": {}}'])
def test_a_call_that_is_none_is_named_without_its_text(value):
    with pytest.raises(DataError, match=r"^a:1: ") as fault:
        messages({"conversations": turns(("human", "q"), ("function_call", value), ("gpt", "a"))})
    assert "secret" not in str(fault.value)


@pytest.mark.parametrize("key", ["conversations", "messages"])
def test_a_turn_that_is_no_object_is_named_without_its_text(key):
    with pytest.raises(DataError, match=r"^a:1: a turn: wanted an object with a role and a text, got a str\.$"):
        messages({key: ["secret"]})


def moss(commands="None", thoughts="None", results="None", answer="a"):
    return {
        "Human": "<|Human|>: q<eoh>\n",
        "Inner Thoughts": f"<|Inner Thoughts|>: {thoughts}<eot>\n",
        "Commands": f"<|Commands|>: {commands}<eoc>\n",
        "Tool Responses": f"<|Results|>:\n{results}\n<eor>\n",
        "MOSS": f"<|MOSS|>: {answer}<eom>\n",
    }


@pytest.mark.parametrize("key", ["chat", "conversation"])
def test_moss_turns_with_and_without_plugins(key):
    search = moss('Search("aspirin dose"), Calculate("2*(3+4)")', "I must look.", "Search => ...", "See <|1|>.")
    fields = {
        key: {"turn_2": search, "turn_1": moss(), "turn_10": None},
        "meta_instruction": "You are MOSS.\n",
        "num_turns": 2,
    }
    assert detect(fields) == "moss"
    calls = (
        {"name": "Search", "arguments": {"query": "aspirin dose"}},
        {"name": "Calculate", "arguments": {"expression": "2*(3+4)"}},
    )
    assert messages(fields) == (
        Message("system", "You are MOSS."),
        Message("user", "q"),
        Message("assistant", "a", True),
        Message("user", "q"),
        Message("assistant", "", True, calls, "I must look."),
        Message("tool", "Search => ..."),
        Message("assistant", "See <|1|>.", True),
    )


def test_moss_thoughts_without_a_command_are_the_answers_reasoning():
    (_, answer) = messages({"chat": {"turn_1": moss(thoughts="A greeting.")}})
    assert answer == Message("assistant", "a", True, reasoning="A greeting.")


def test_turns_of_moss_are_in_order_of_their_numbers():
    chat = {f"turn_{i}": {**moss(answer=str(i)), "Human": f"q{i}"} for i in (10, 9, 2)}
    assert [m.content for m in messages({"chat": chat})] == ["q2", "2", "q9", "9", "q10", "10"]


def test_moss_without_tools_may_be_a_list_and_a_command_that_is_none_is_a_fault():
    assert messages({"conversation": [{"human": "q", "assistant": "a"}]})[1].content == "a"
    with pytest.raises(DataError, match=r"a:1: moss_map_fn: 'Commands' holds something else than calls") as fault:
        messages({"chat": {"turn_1": moss("secret words")}})
    assert "secret" not in str(fault.value)
