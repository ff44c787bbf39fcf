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


class TemplateFault(Exception):
    """A chat template refuses a conversation, is no template, or goes over the limits. Never holds a row's text."""


def render_chat_template(
    source: str,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    marked: bool = False,
    add_generation_prompt: bool = False,
) -> tuple[str, list[tuple[int, int]]]:
    """Render a conversation with a Jinja chat template.

    Args:
        source: the template.
        messages: the conversation.
        variables: what the template may use besides, such as bos_token.
        marked: find what its `{% generation %}` marks enclose.
        add_generation_prompt: end with the beginning of an answer.

    Returns: the text, and the (start, end) characters of each mark.

    Raises:
        TemplateFault: with the template's own message, where it has one.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    _check_source(source)
    rendered: Any  # transformers declares a str, and returns the texts and the spans
    try:
        with limited():
            rendered = render_jinja_template(
                conversations=[[{"role": message.role, "content": message.content} for message in messages]],
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
    if len(text) > SPARE + REPEATS * sum(len(message.content) for message in messages):
        raise TemplateFault("it writes too much")
    return text, spans[0] if marked else []


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
