"""Rendering a model's own chat template, which is code that came with a download.

transformers' immutable sandbox keeps it from reaching Python; here its time, its memory and the length of what it
writes are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from medtune.data.records import Message
from medtune.limits import OverLimit, limited

LONGEST_SOURCE = 1_000_000  # characters; the longest template in use has some 20,000
SPARE = 1_000_000  # characters that a template may write besides the messages, each of them up to
REPEATS = 4  # times
THOUGHT = "<think>\n{}\n</think>\n\n"


class TemplateFault(Exception):
    """A chat template refuses a conversation, is no template, or goes over the limits. Never holds a row's text."""


def render_chat_template(
    source: str,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    marked: bool = False,
    add_generation_prompt: bool = False,
    tools: Sequence[Mapping[str, Any]] = (),
    thought_in_content: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation with a Jinja chat template.

    Args:
        source: the template.
        messages: the conversation.
        variables: what the template may use besides, such as bos_token.
        marked: find what its `{% generation %}` marks enclose.
        add_generation_prompt: end with the beginning of an answer.
        tools: definitions of the functions the assistant may call.
        thought_in_content: see `message_dicts`.

    Returns: the text, and the (start, end) characters of each mark.

    Raises:
        TemplateFault: with the template's own message, where it has one.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    _check_source(source)
    dicts = message_dicts(messages, thought_in_content)
    rendered: Any  # transformers declares a str, and returns the texts and the spans
    try:
        with limited():
            rendered = render_jinja_template(
                conversations=[dicts],
                tools=list(tools) or None,  # type: ignore[arg-type]  # a list is invariant
                chat_template=source,
                return_assistant_tokens_mask=marked,
                add_generation_prompt=add_generation_prompt,
                **variables,
            )
    except OverLimit as fault:
        raise TemplateFault(str(fault)) from None
    except Exception as fault:  # a template is a program, and can raise nearly everything
        # It may put the row's text into its message, so only what is written in the template is shown.
        raise TemplateFault(str(fault) if str(fault) in source else "") from None
    (text, *_), spans = rendered
    if len(text) > SPARE and len(text) > SPARE + REPEATS * (len(str(dicts)) + len(str(tools))):
        raise TemplateFault("it writes too much")
    return text, spans[0] if marked else []


def message_dicts(messages: Sequence[Message], thought_in_content: bool = False) -> list[dict[str, Any]]:
    """Messages as chat templates read them: OpenAI's dicts, with transformers' `reasoning_content`.

    Tool calls get ids in order, of nine characters as Mistral's templates demand, and results the id and the name of
    the call they answer.

    Args:
        messages: of one conversation, from its first.
        thought_in_content: write the reasoning into the content, between `<think>` tags, for templates that know no
            `reasoning_content`; so it is what a model that speaks so would have said.
    """
    dicts: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []  # of the last assistant message, those that have no result yet
    num_calls = 0
    for message in messages:
        told: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning and thought_in_content:
            told["content"] = THOUGHT.format(message.reasoning) + message.content
        elif message.reasoning:
            told["reasoning_content"] = message.reasoning
        if message.tool_calls:
            calls = [
                {"id": f"call{num_calls + i:05d}", "type": "function", "function": dict(call)}
                for i, call in enumerate(message.tool_calls)
            ]
            num_calls += len(calls)
            told["tool_calls"] = list(calls)
        elif message.role == "tool" and calls:
            call = calls.pop(0)
            told.update(tool_call_id=call["id"], name=call["function"]["name"])
        dicts.append(told)
    return dicts


@lru_cache(maxsize=8)
def _check_source(source: str) -> None:
    """Refuse what the limits would not stop: a power of large numbers is one operation, and takes for ever."""
    from jinja2 import Environment, TemplateSyntaxError

    if len(source) > LONGEST_SOURCE:
        raise TemplateFault("it is too long")
    try:
        with limited():
            powers = [value for _, kind, value in Environment().lex(source) if (kind, value) == ("operator", "**")]
    except (TemplateSyntaxError, RecursionError) as fault:
        raise TemplateFault(str(fault)) from None
    if powers:
        raise TemplateFault("it computes powers")
