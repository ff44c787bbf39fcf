"""A chat template is a program from a download: it renders, or it is refused within bounds; it reaches nothing."""

from __future__ import annotations

import time

import pytest

from medtune.data.chat_template import TemplateFault, message_dicts, render_chat_template
from medtune.data.records import Message
from medtune.data.templates import resolve_template
from medtune.errors import DataError

QUESTION = [Message("user", "secret of a patient"), Message("assistant", "fine")]


def refusal(source: str) -> str:
    began = time.monotonic()
    with pytest.raises(TemplateFault) as raised:
        render_chat_template(source, QUESTION, {})
    assert time.monotonic() - began < 20
    return str(raised.value)


def test_a_template_renders_with_its_variables_and_marks():
    source = "{{ bos }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}"
    text, spans = render_chat_template(source, QUESTION, {"bos": "<s>"}, marked=True)
    assert text == "<s>secret of a patient|fine|"
    assert [text[start:end] for start, end in spans] == ["secret of a patient", "fine"]


def test_calls_are_numbered_through_the_conversation_and_results_name_the_call_they_answer():
    calls = ({"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}})
    messages = [
        Message("user", "q"),
        Message("assistant", "", tool_calls=calls, reasoning="t"),
        Message("tool", "1"),
        Message("tool", "2"),
        Message("assistant", "x", tool_calls=calls[:1]),
        Message("tool", "3"),
    ]
    dicts = message_dicts(messages)
    ids = [call["id"] for told in dicts for call in told.get("tool_calls", [])]
    assert ids == ["call00000", "call00001", "call00002"]
    assert [(d["name"], d["tool_call_id"]) for d in dicts if d["role"] == "tool"] == [
        ("f", ids[0]), ("g", ids[1]), ("f", ids[2]),
    ]  # fmt: skip
    assert dicts[1]["tool_calls"][0]["function"] == calls[0] and dicts[1]["reasoning_content"] == "t"
    assert message_dicts(messages, True)[1]["content"] == "<think>\nt\n</think>\n\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{{ 'a' * 100000000000 }}",
        "{{ 'a'.ljust(100000000000) }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'a' * 2000000 }}",
        "x" * 2_000_000,
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{% include '/etc/passwd' %}",
        "{{ messages.clear() }}",
        "{% for",
    ],
    ids=lambda source: source[:50],
)
def test_a_hostile_template_is_refused_in_bounded_time(source):
    refusal(source)


def test_a_templates_own_message_is_told_and_the_rows_text_is_not():
    assert refusal("{{ raise_exception('roles must alternate') }}") == "roles must alternate"
    assert refusal("{{ raise_exception('bad: ' ~ messages[0].content) }}") == ""


def test_a_tokenizer_with_such_a_template_is_refused_in_one_line(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "chat_template", "{{ 9 ** 9 ** 9 }}")
    with pytest.raises(DataError, match="computes powers") as raised:
        resolve_template(None, tiny_tokenizer).render(QUESTION)
    assert "\n" not in str(raised.value) and "patient" not in str(raised.value)
