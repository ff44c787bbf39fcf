"""`<NAME>` and `{{name}}`: the places that self-cognition sets leave for the model's name and its author's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from medtune.data.records import Conversation, Message, Preference, Record
from medtune.errors import ConfigError

NAMES = ("name", "author")
"""What the published sets leave open (CareGPT's and LLaMA-Factory's)."""

SameRecord = TypeVar("SameRecord", Conversation, Preference, Record)


def check_placeholders(values: Any) -> None:
    """Check the setting `placeholders`.

    Raises:
        ConfigError: it is no dict of words to texts.
    """
    if not isinstance(values, Mapping):
        got = type(values).__name__
        raise ConfigError(f"placeholders: wanted dict(name='...', author='...'), got a {got}.")
    for name, text in values.items():
        if not isinstance(name, str) or not name.isidentifier() or not isinstance(text, str) or not text.strip():
            raise ConfigError(
                f"placeholders: {str(name)[:20]!r}: wanted a word and the text that stands for it, for example "
                "dict(name='MedTune', author='Ward 3')."
            )


def fill_placeholders(record: SameRecord, values: Mapping[str, str]) -> SameRecord:
    """Put texts in the places left for them.

    Args:
        record: from `to_record`.
        values: word -> text; `name` fills `<NAME>` and `{{name}}`.

    >>> said = Conversation((Message("assistant", "I am <NAME> by {{author}}."),))
    >>> fill_placeholders(said, {"name": "MedTune", "author": "Ward 3"}).messages[0].content
    'I am MedTune by Ward 3.'
    """
    if not values:
        return record
    texts = {place: text for name, text in values.items() for place in _places(name)}
    pattern = _pattern(values)

    def fill(text: str) -> str:
        return pattern.sub(lambda match: texts[match[0]], text)

    filled: SameRecord = _with_texts(record, fill)
    return filled


def unfilled_placeholders(record: Record, values: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Places a record still leaves open: the published names, and those of `values`; sorted, each once.

    >>> unfilled_placeholders(Conversation((Message("assistant", "I am <NAME> by {{author}}, not <MASK>."),)))
    ('<NAME>', '{{author}}')
    """
    pattern = _pattern({**dict.fromkeys(NAMES), **(values or {})})
    return tuple(sorted({place for text in _texts(record) for place in pattern.findall(text)}))


def _places(name: str) -> tuple[str, str]:
    return f"<{name.upper()}>", f"{{{{{name}}}}}"


def _pattern(names: Mapping[str, Any]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(place) for name in names for place in _places(name)))


def _parts(record: Record) -> tuple[tuple[Message, ...], ...]:
    if isinstance(record, Preference):
        return record.prompt, record.chosen, record.rejected
    return (record.messages,)


def _texts(record: Record) -> Iterator[str]:
    for messages in _parts(record):
        for message in messages:
            yield message.content
            yield message.reasoning


def _with_texts(record: Any, change: Callable[[str], str]) -> Any:
    """The record, of whichever kind, with its texts changed."""
    parts = [
        tuple(replace(m, content=change(m.content), reasoning=change(m.reasoning)) for m in messages)
        for messages in _parts(record)
    ]
    if isinstance(record, Preference):
        return replace(record, prompt=parts[0], chosen=parts[1], rejected=parts[2])
    return replace(record, messages=parts[0])
