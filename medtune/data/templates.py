"""Dialogue formats: messages in, text with the trained parts marked out.

Training, evaluation and chat render through the same call, so what is trained on is what is sent. A format is either
a named `Template` (the table is in `template_table.py`) or the tokenizer's own Jinja chat template.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

from medtune.data.chat_template import TemplateFault, render_chat_template
from medtune.data.records import Message
from medtune.data.template_table import SYSTEM_TEMPLATE, TEMPLATES, NameTable
from medtune.errors import ConfigError, DataError, nearest

__all__ = [
    "PROMPT_TEMPLATE",
    "SYSTEM_TEMPLATE",
    "Segment",
    "Template",
    "TokenizerTemplate",
    "resolve_template",
    "special_tokens",
    "stop_strings",
    "stop_token_ids",
]

GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
PROBE = "probe 0123456789"
Rendered = tuple[str, list[tuple[int, int]]]


class Segment(NamedTuple):
    """A piece of a rendered conversation. Each is tokenised on its own, so its ids never depend on what follows."""

    text: str
    trained: bool
    """True if the loss is taken on its tokens."""


@dataclass(frozen=True)
class Template:
    """A named dialogue format, in XTuner's terms.

    A turn is `instruction`, then the answer with its end token (the trained part), then `sep`. The system text, if
    there is one, stands before the first turn. `resolve_template` fills in `bos` and `eos` from the tokenizer.
    """

    name: str
    instruction: str
    """The question and the opening of the answer; holds `{input}`, and may hold `{round}`, the turn counted from 1."""
    system: str = ""
    """Holds `{system}`; empty if the format has no place for a system text."""
    suffix: str = ""
    """Ends every answer."""
    suffix_as_eos: bool = False
    """True if `suffix` takes the place of the tokenizer's eos token; False if eos follows it."""
    sep: str = ""
    stop_words: tuple[str, ...] = ()
    bos: str = ""
    """What the tokenizer puts at the start on its own."""
    eos: str = ""

    def __post_init__(self) -> None:
        if self.instruction.count("{input}") != 1:
            raise ConfigError(f"template {self.name!r}: INSTRUCTION must hold {{input}} once.")
        if self.system and self.system.count("{system}") != 1:
            raise ConfigError(f"template {self.name!r}: SYSTEM must hold {{system}} once.")

    @property
    def end(self) -> str:
        """What ends an answer: the suffix, the eos token, or both."""
        return self.suffix if self.suffix_as_eos or self.suffix.endswith(self.eos) else self.suffix + self.eos

    @property
    def markup(self) -> str:
        """All text of the format itself; a token found in it is a control token."""
        return "\0".join((self.bos, self.system, self.instruction, self.end, self.sep, *self.stop_words))

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> list[Segment]:
        """Render a conversation, every answer with its end token as a segment of its own.

        An answer that no question comes before follows an empty question. With `add_generation_prompt` the text ends
        where the next answer begins.

        Raises:
            DataError: a system text, and the format has no place for one.
        """
        segments: list[Segment] = []
        prompt, turn, asked = self.bos, 0, False
        for message in messages:
            if message.role == "system":
                prompt += self._system_text(message.content)
            elif message.role == "user":
                turn, asked = turn + 1, True
                prompt += self._question(message.content, turn)
            else:
                if not asked:
                    turn += 1
                    prompt += self._question("", turn)
                segments += [Segment(prompt, False), Segment(message.content + self.end, message.trained)]
                prompt, asked = self.sep, False
        if add_generation_prompt and not asked:
            prompt += self._question("", turn + 1)
        segments.append(Segment(prompt, False))
        return [segment for segment in segments if segment.text]

    def _system_text(self, content: str) -> str:
        if content and not self.system:
            raise DataError(f"template {self.name!r} has no place for a system text; drop it or name another template.")
        head, _, tail = self.system.partition("{system}")
        return head + content + tail if content else ""

    def _question(self, content: str, turn: int) -> str:
        # Only the format's own text is searched for {round}: braces in a question are a patient's.
        head, _, tail = self.instruction.partition("{input}")
        return head.replace("{round}", str(turn)) + content + tail.replace("{round}", str(turn))

    def to_jinja(self, bos: str = "") -> str:
        """The same format as a transformers chat template, with `{% generation %}` marks around the trained parts.

        Args:
            bos: what opens the text, where it is not `self.bos`.
        """
        head, _, tail = self.instruction.partition("{input}")
        question = f"{_literal(head)} ~ message['content'] ~ {_literal(tail)}"
        empty_question = f"{{% set turn.number = turn.number + 1 %}}{{{{ {_literal(head)} ~ {_literal(tail)} }}}}"
        head, _, tail = self.system.partition("{system}")
        system = f"{{{{ {_literal(head)} ~ message['content'] ~ {_literal(tail)} }}}}"
        if not self.system:
            system = "{{ raise_exception('This chat template has no place for a system text.') }}"
        return (
            f"{{{{ {_literal(bos or self.bos)} }}}}{{% set turn = namespace(number=0, asked=false) %}}"
            "{% for message in messages %}"
            f"{{% if message['role'] == 'system' %}}{{% if message['content'] %}}{system}{{% endif %}}"
            "{% elif message['role'] == 'user' %}"
            f"{{% set turn.number = turn.number + 1 %}}{{% set turn.asked = true %}}{{{{ {question} }}}}"
            f"{{% else %}}{{% if not turn.asked %}}{empty_question}{{% endif %}}"
            f"{{% generation %}}{{{{ message['content'] ~ {_literal(self.end)} }}}}{{% endgeneration %}}"
            f"{{{{ {_literal(self.sep)} }}}}{{% set turn.asked = false %}}{{% endif %}}{{% endfor %}}"
            f"{{% if add_generation_prompt and not turn.asked %}}{empty_question}{{% endif %}}"
        )

    def bind(self, tokenizer: Any) -> Template:
        """This format with the tokenizer's own first token, and its eos token where the format ends with that.

        Raises:
            ConfigError: the format ends answers with eos and the tokenizer has none.
        """
        eos = "" if self.suffix_as_eos else tokenizer.eos_token
        if eos is None:
            raise ConfigError(
                f"template {self.name!r} ends answers with the eos token and {_name(tokenizer)} has none; "
                "set eos_token in its tokenizer_config.json, or name a template with an end token of its own."
            )
        return replace(self, bos=_bos_text(tokenizer), eos=eos)


def _literal(text: str) -> str:
    """A Jinja expression for template text: a string literal, with {round} as the turn's number."""
    parts = [json.dumps(part, ensure_ascii=False) for part in text.split("{round}")]
    return " ~ turn.number ~ ".join(parts)


class TokenizerTemplate:
    """A tokenizer's own Jinja chat template, with the interface of `Template`.

    With `{% generation %}` marks the trained parts are what they enclose. Without, an answer is what a conversation
    gains over its prompt, up to the end-of-turn token. Rendered by transformers in its immutable sandbox.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.name = _name(tokenizer)
        self.chat_template: str = tokenizer.get_chat_template()
        self.marked = bool(GENERATION_MARK.search(self.chat_template))
        self._variables = dict(tokenizer.special_tokens_map)
        self.stop_words = self._find_stop_words(tokenizer)

    @property
    def markup(self) -> str:
        """The end-of-turn tokens. Other tokens of the format, such as `<think>`, an answer may well hold."""
        return "\0".join(self.stop_words)

    def to_jinja(self, bos: str = "") -> str:
        """The chat template itself; it writes its own bos."""
        return self.chat_template

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> list[Segment]:
        """Render a conversation, every answer as a segment of its own.

        Raises:
            DataError: the template refuses the conversation, or hides where its answers are.
        """
        answers = [message for message in messages if message.role == "assistant"]
        if self.marked:
            text, spans = self._render(messages, add_generation_prompt)
            if len(spans) != len(answers):
                raise DataError(
                    f"{self.name}: its chat template marks {len(spans)} of {len(answers)} answers. {_ADVICE}"
                )
        else:
            text, spans = self._spans_by_prefix(messages, add_generation_prompt)
        segments, done = [], 0
        for message, (start, end) in zip(answers, spans, strict=True):
            segments += [Segment(text[done:start], False), Segment(text[start:end], message.trained)]
            done = end
        segments.append(Segment(text[done:], False))
        return [segment for segment in segments if segment.text]

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> Rendered:
        """The text and, with marks, the (start, end) characters they enclose."""
        try:
            return render_chat_template(
                self.chat_template, messages, self._variables, self.marked, add_generation_prompt
            )
        except TemplateFault as fault:
            said = f" ({fault})" if str(fault) else ""
            raise DataError(f"{self.name}: its chat template refuses this conversation{said}. {_ADVICE}") from None

    def _spans_by_prefix(self, messages: Sequence[Message], add_generation_prompt: bool) -> Rendered:
        text, _ = self._render(messages, add_generation_prompt)
        spans = []
        for i, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt, _ = self._render(messages[:i], True)
            told, _ = self._render(messages[: i + 1], False)
            start = len(prompt)
            end = start + self._answer_length(told[start:])
            if not told.startswith(prompt) or not text.startswith(told[:end]):
                raise DataError(
                    f"{self.name}: its chat template changes earlier turns (as those that drop <think> do), so a "
                    f"prompt is not the beginning of the trained text. {_ADVICE}"
                )
            spans.append((start, end))
        return text, spans

    def _answer_length(self, text: str) -> int:
        """Characters up to the last end-of-turn token; white space after it is the separator."""
        ends = [text.rfind(word) + len(word) for word in self.stop_words if word in text]
        return max(ends, default=len(text.rstrip()))

    def _find_stop_words(self, tokenizer: Any) -> tuple[str, ...]:
        """The special token the template writes after an answer, and eos."""
        words = [tokenizer.eos_token] if tokenizer.eos_token else []
        try:
            text, _ = self._render([Message("user", "1"), Message("assistant", PROBE)], False)
        except DataError:
            return tuple(words)
        tail = text.rpartition(PROBE)[2]
        found = [(tail.find(token), -len(token), token) for token in special_tokens(tokenizer) if token in tail]
        return tuple(dict.fromkeys([*(token for _, _, token in sorted(found)[:1]), *words]))


PROMPT_TEMPLATE: NameTable[Template] = NameTable(
    "prompt_template", {name: Template(name, **entry) for name, entry in TEMPLATES.items()}
)
_ADVICE = f"Name a format with prompt_template: {', '.join(PROMPT_TEMPLATE)}."


def resolve_template(
    prompt_template: str | Template | TokenizerTemplate | Mapping[str, Any] | None, tokenizer: Any
) -> Template | TokenizerTemplate:
    """The format that `prompt_template` means for this tokenizer. Resolving twice is resolving once.

    Args:
        prompt_template: None for the tokenizer's own chat template; a name in `PROMPT_TEMPLATE`; a `Template`; or a
            mapping of XTuner's shape (`SYSTEM`, `INSTRUCTION`, `SUFFIX`, `SUFFIX_AS_EOS`, `SEP`, `STOP_WORDS`).

    Raises:
        ConfigError: an unknown name or key, or a tokenizer without what is asked of it.
    """
    if isinstance(prompt_template, TokenizerTemplate):
        return prompt_template
    if isinstance(prompt_template, Template):
        return prompt_template.bind(tokenizer)
    if isinstance(prompt_template, str):
        return PROMPT_TEMPLATE[prompt_template].bind(tokenizer)
    if isinstance(prompt_template, Mapping):
        return _from_mapping(prompt_template).bind(tokenizer)
    if prompt_template is not None:
        got = type(prompt_template).__name__
        raise ConfigError(f"prompt_template: wanted a name, a Template, a mapping or None, got a {got}.")
    if not tokenizer.chat_template:
        guess = nearest(_name(tokenizer).rstrip("/").split("/")[-1].lower().replace("-", "_"), PROMPT_TEMPLATE)
        raise ConfigError(f"{_name(tokenizer)}: the tokenizer has no chat template. {_ADVICE}{guess}")
    try:
        return TokenizerTemplate(tokenizer)
    except ValueError:
        raise ConfigError(f"{_name(tokenizer)}: none of its chat templates is the default one. {_ADVICE}") from None


def _from_mapping(mapping: Mapping[str, Any]) -> Template:
    known = {field.name.upper() for field in fields(Template)} - {"BOS", "EOS"}
    values = {str(key).upper(): value for key, value in mapping.items()}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(f"prompt_template: unknown key {key!r}.{nearest(key, known)} Known: {sorted(known)}.")
        wanted = {"SUFFIX_AS_EOS": bool, "STOP_WORDS": (list, tuple)}.get(key, str)
        if not isinstance(value, wanted):  # type: ignore[arg-type]
            raise ConfigError(
                f"prompt_template.{key}: got a {type(value).__name__}; see PROMPT_TEMPLATE for the shape."
            )
    if "INSTRUCTION" not in values:
        raise ConfigError("prompt_template: the mapping has no INSTRUCTION, such as '<|user|>{input}<|assistant|>'.")
    values["STOP_WORDS"] = tuple(values.get("STOP_WORDS", ()))
    return Template(values.pop("NAME", "custom"), **{key.lower(): value for key, value in values.items()})


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts a tokenizer turns into special tokens, wherever they stand."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]


def stop_token_ids(template: Template | TokenizerTemplate, tokenizer: Any) -> set[int]:
    """Ids that end an answer: eos, and the suffix and stop words that are single tokens."""
    added = tokenizer.added_tokens_encoder
    ids = {added[word] for word in _stops(template) if word in added}
    return ids if tokenizer.eos_token_id is None else ids | {tokenizer.eos_token_id}


def stop_strings(template: Template | TokenizerTemplate, tokenizer: Any) -> list[str]:
    """Stop words that are no single token, so they have to be looked for in the text."""
    return [word for word in _stops(template) if word not in tokenizer.added_tokens_encoder]


def _stops(template: Template | TokenizerTemplate) -> list[str]:
    suffix = template.suffix.strip() if isinstance(template, Template) else ""
    return list(dict.fromkeys(word for word in (suffix, *template.stop_words) if word))


def _name(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or "the tokenizer")


def _bos_text(tokenizer: Any) -> str:
    """What the tokenizer itself puts before a text: "<s>", "[gMASK]<sop>", or nothing."""
    ids = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    size = next((k for k in range(len(ids)) if ids[k : k + len(bare)] == bare), 0)
    return "".join(tokenizer.convert_ids_to_tokens(ids[:size]))
