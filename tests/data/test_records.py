"""Records: what the one door lets in, what it names, and which messages are trained."""

from __future__ import annotations

import re

import pytest

from medtune.data.records import Conversation, Message, Preference, mark_trained, to_conversation, to_record
from medtune.errors import ConfigError, DataError

USER, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
CALL = {"id": "call_7", "type": "function", "function": {"name": "dose", "arguments": '{"drug": "aspirin"}'}}
TOOL = {"name": "dose", "description": "Dose of a drug", "parameters": {"type": "object"}}


def test_openai_messages_with_tools_become_a_conversation_with_bare_calls():
    raw = {
        "messages": [
            {"role": "system", "content": "s"},
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning": "I look it up."},
            {"role": "tool", "content": "500 mg", "tool_call_id": "call_7"},
            {"role": "assistant", "content": "500 mg.", "weight": 0},
        ],
        "tools": [{"type": "function", "function": TOOL}],
    }
    calls = ({"name": "dose", "arguments": {"drug": "aspirin"}},)
    assert to_record(raw, "a.jsonl:1") == Conversation(
        (
            Message("system", "s"),
            Message("user", "q"),
            Message("assistant", "", True, calls, "I look it up."),
            Message("tool", "500 mg"),
            Message("assistant", "500 mg.", False),
        ),
        "a.jsonl:1",
        ({"type": "function", "function": TOOL},),
    )


@pytest.mark.parametrize(
    "tools", [[TOOL], f"[{str(TOOL).replace(chr(39), chr(34))}]", {"type": "function", "function": TOOL}]
)
def test_tools_may_be_bare_json_text_or_one_alone(tools):
    record = to_record({"messages": [USER, ANSWER], "tools": tools})
    assert record.tools == ({"type": "function", "function": TOOL},)


@pytest.mark.parametrize("tools", [None, [], "[]", ""])
def test_no_tools_are_no_tools(tools):
    assert to_record({"messages": [USER, ANSWER], "tools": tools}).tools == ()


def test_a_pair_trains_its_answers_and_never_its_prompt():
    prompt = [USER, {**ANSWER, "loss": True}, {"role": "user", "content": "q2"}]
    record = to_record({"prompt": prompt, "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "b"}]}, "a:1")
    assert isinstance(record, Preference)
    assert [message.trained for message in record.prompt] == [False, False, False]
    good, bad = record.conversations()
    assert [m.content for m in good.messages] == ["q", "a", "q2", "a"]
    assert [m.content for m in bad.messages] == ["q", "a", "q2", "b"]
    assert [m.trained for m in bad.messages] == [False, False, False, True]
    assert good.origin == "a:1"


def test_a_record_passes_the_door_again_unchanged():
    for raw in (
        {"messages": [USER, ANSWER], "label": False},
        {"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]},
    ):
        record = to_record(raw, "a:1")
        assert to_record(record) == record
        assert to_record(record, "b:2").origin == "b:2"


def messages(*pairs):
    return {"messages": [{"role": role, "content": text} for role, text in pairs]}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("secret", "must return a dict, got a str"),
        ({"note": "secret"}, "must return 'conversation', 'messages', or 'prompt', 'chosen' and 'rejected'"),
        (messages(("user", "q")), "no assistant message to learn from"),
        (
            messages(("user", "q"), ("assistant", "a"), ("system", "s")),
            "messages[2]: a system message must be the first",
        ),
        (
            messages(("user", "q"), ("assistant", "a"), ("assistant", "a")),
            "messages[2]: two assistant messages in a row",
        ),
        (messages(("user", "q"), ("tool", "t"), ("assistant", "a")), "messages[1]: a tool's result must follow"),
        (
            messages(("Mrs Secret of 12 Road", "q"), ("assistant", "a")),
            "messages[0]: unknown role that is no plain word",
        ),
        (messages(("nurse", "q"), ("assistant", "a")), "unknown role 'nurse'; known are system, user, assistant, tool"),
        (messages(("user", 7), ("assistant", "a")), "messages[0].content: wanted text, got a int"),
        ({"messages": ["secret"]}, "messages[0]: wanted an object with 'role' and 'content'"),
        ({"messages": [USER, {"role": "assistant"}]}, "messages[1]: wanted an object with 'role' and 'content'"),
        ({"messages": [USER, ANSWER], "label": "secret"}, "label: wanted true or false, got a str"),
        ({"messages": [USER, ANSWER], "tools": "secret"}, "tools: wanted JSON, got text that is none"),
        ({"messages": [USER, ANSWER], "tools": [7]}, "tools[0]: wanted an object, got a int"),
        ({"messages": [USER, ANSWER], "tools": [{"x": 1}]}, "tools[0]: wanted a tool with a 'name'"),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [{"x": 1}]}]},
            "messages[1].tool_calls[0]: wanted a call with a 'name'",
        ),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [{"name": "n", "arguments": "secret"}]}]},
            "messages[1].tool_calls[0].arguments: wanted JSON",
        ),
        (
            {"messages": [USER, {**ANSWER, "tool_calls": [{"name": "n", "arguments": [1]}]}]},
            "messages[1].tool_calls[0].arguments: wanted an object, also as JSON text, got a list",
        ),
        ({"conversation": ["secret"]}, "conversation[0]: wanted an object with 'input' and 'output'"),
        ({"conversation": [{"input": "secret"}]}, "conversation[0]: no 'output'; it has ['input']"),
        ({"prompt": [], "chosen": [ANSWER], "rejected": [ANSWER]}, "prompt: no message of a user to answer"),
        ({"prompt": [USER], "chosen": [], "rejected": [ANSWER]}, "chosen: wanted an answer"),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [USER]}, "rejected: wanted an answer"),
        ({"prompt": [USER, ANSWER], "chosen": [ANSWER], "rejected": [ANSWER]}, "prompt + chosen[2]: two assistant"),
    ],
)
def test_a_fault_names_the_place_and_never_the_text(raw, message):
    with pytest.raises(DataError, match=re.escape(message)) as fault:
        to_record(raw, "a.jsonl:3")
    assert str(fault.value).startswith("a.jsonl:3: ")
    assert "secret" not in str(fault.value).lower()
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize(
    "raw", [{"prompt": [USER], "chosen": [ANSWER], "rejected": [ANSWER]}, {"messages": [USER, ANSWER], "label": True}]
)
def test_where_a_conversation_is_wanted_pairs_and_labels_are_refused_with_what_to_do(raw):
    with pytest.raises(DataError, match=r"a:1: .* where a conversation is wanted\. .*dataset_map_fn='chosen'"):
        to_conversation(raw, "a:1")


TALK = Conversation(
    (
        Message("system", "s"),
        Message("user", "q1"),
        Message("assistant", "off", False),
        Message("user", "q2"),
        Message("assistant", "", True, ({"name": "n", "arguments": {}},)),
        Message("tool", "t"),
        Message("assistant", "a2", True),
        Message("user", "q3"),
    )
)


@pytest.mark.parametrize(("train_on", "trained"), [("answers", "____A_A_"), ("last", "______A_"), ("all", "SU_UATAU")])
def test_train_on_marks_messages_and_an_answer_switched_off_stays_off(train_on, trained):
    marked = mark_trained(TALK, train_on)
    assert "".join(m.role[0].upper() if m.trained else "_" for m in marked.messages) == trained
    assert [m.content for m in marked.messages] == [m.content for m in TALK.messages]


def test_train_on_last_trains_nothing_where_the_last_answer_is_off():
    talk = Conversation(
        (Message("user", "q"), Message("assistant", "a", True), Message("user", "q"), Message("assistant", "b"))
    )
    assert not any(m.trained for m in mark_trained(talk, "last").messages)


def test_an_unknown_train_on_is_named():
    with pytest.raises(ConfigError, match="train_on='prompts' is unknown; known are answers, last, all"):
        mark_trained(TALK, "prompts")
