"""Dialogue formats: messages in, text with the trained parts marked out.

Training, evaluation and chat render through the same calls, so what is trained on is what is sent. A format is either
a named `Template` (the table is in `template_table.py`) or the tokenizer's own (`tokenizer_template.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from medtune.data.chat_template import THOUGHT
from medtune.data.records import Message
from medtune.data.segments import Segment
from medtune.data.template_jinja import to_jinja
from medtune.data.template_table import SYSTEM_TEMPLATE, TEMPLATES, NameTable
from medtune.data.tokenizer_template import ADVICE, TokenizerTemplate, Tools, special_tokens, tokenizer_name
from medtune.errors import ConfigError, DataError, nearest

__all__ = [
    "PROMPT_TEMPLATE",
    "SYSTEM_TEMPLATE",
    "DocumentTemplate",
    "Segment",
    "Template",
    "TokenizerTemplate",
    "ToolFormat",
    "document_template",
    "resolve_template",
    "special_tokens",
    "stop_strings",
    "stop_token_ids",
]


@dataclass(frozen=True)
class ToolFormat:
    """How a named format writes tools: their definitions, calls and results."""

    definitions: str
    """Holds `{tools}`: one JSON object a line, or one JSON list."""
    call: str
    """One call; holds `{name}` and `{arguments}`, both as JSON."""
    result: str = "{result}"
    """One result; those that follow each other are one question, a line break between them."""
    results: str = ""
    """The turn of the results, in place of `instruction`; holds `{input}`."""
    glue: str = ""
    """Between an answer's text and its calls, and between two calls."""
    as_list: bool = False
    """True if the definitions are one JSON list of functions."""
    own_turn: bool = False
    """True if the definitions stand behind the system turn; False if in it, behind the system text."""

    def define(self, tools: Tools) -> str:
        """The text of the definitions."""
        listed = _json([tool["function"] for tool in tools]) if self.as_list else "\n".join(map(_json, tools))
        before, _, after = self.definitions.partition("{tools}")
        return before + listed + after

    def calls(self, message: Message) -> str:
        """What an assistant's message says to call its tools."""
        told = ""
        for i, call in enumerate(message.tool_calls):
            values = {"{name}": _json(call["name"]), "{arguments}": _json(call["arguments"])}
            told += self.glue if i or message.content else ""
            told += "".join(values.get(part, part) for part in self.call_parts())
        return told

    def call_parts(self) -> list[str]:
        """`call` cut at its places."""
        return re.split(r"(\{name\}|\{arguments\})", self.call)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


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
    tool_format: ToolFormat | None = None
    """None if the format has no place for tools."""
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
        texts = [self.bos, self.system, self.instruction, self.end, self.sep, *self.stop_words]
        if self.tool_format:
            texts += [self.tool_format.call, self.tool_format.result, self.tool_format.results]
        return "\0".join(texts)

    @property
    def prompt_markup(self) -> str:
        """The same for text that no model says: there the tags of a thought are control tokens too."""
        return self.markup + THOUGHT

    def render_rows(self, messages: Sequence[Message], tools: Tools = ()) -> list[list[Segment]]:
        """Render a conversation for training: here always one row, since no turn depends on a later one."""
        return [self.render(messages, tools=tools)]

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, tools: Tools = ()
    ) -> list[Segment]:
        """Render a conversation, every answer with its end token as a segment of its own.

        An answer that no question comes before follows an empty question. With `add_generation_prompt` the text ends
        where the next answer begins.

        Raises:
            DataError: a system text or tools, and the format has no place for them.
        """
        segments: list[Segment] = []
        prompt, turn, asked = _Prompt(self.bos), 0, False
        system = messages[0] if messages and messages[0].role == "system" else None
        if tools or (system and system.content):
            self._open(prompt, system, tools)
        for i, message in enumerate(messages):
            if message.role == "user":
                turn, asked = turn + 1, True
                self._ask(prompt, message, turn)
            elif message.role == "tool":
                self._give_result(prompt, messages, i)
                asked = True
            elif message.role == "assistant":
                if not asked:
                    turn += 1
                    self._ask(prompt, Message("user", ""), turn)
                segments += [prompt.take(), Segment(self._spoken(message) + self.end, message.trained)]
                prompt, asked = _Prompt(self.sep), False
        if add_generation_prompt and not asked:
            self._ask(prompt, Message("user", ""), turn + 1)
        segments.append(prompt.take())
        return [segment for segment in segments if segment.text]

    def _open(self, prompt: _Prompt, system: Message | None, tools: Tools) -> None:
        """The system text and the definitions of the tools."""
        if not self.system and system and system.content:
            raise DataError(f"template {self.name!r} has no place for a system text; drop it or name another template.")
        definitions = self._tool_format().define(tools) if tools else ""
        own_turn = bool(self.tool_format and self.tool_format.own_turn)
        head, _, tail = self.system.partition("{system}")
        if (system and system.content) or (definitions and not own_turn):
            prompt.text += head
            if system and system.content:
                prompt.say(system)
                prompt.text += "\n\n" if definitions and not own_turn else ""
            prompt.text += tail if own_turn else definitions + tail
        if own_turn:
            prompt.text += definitions

    def _ask(self, prompt: _Prompt, message: Message, turn: int) -> None:
        # Only the format's own text is searched for {round}: braces in a question are a patient's.
        head, _, tail = self.instruction.partition("{input}")
        prompt.text += head.replace("{round}", str(turn))
        prompt.say(message)
        prompt.text += tail.replace("{round}", str(turn))

    def _give_result(self, prompt: _Prompt, messages: Sequence[Message], i: int) -> None:
        """One result of a tool, within one question with those beside it."""
        tools = self._tool_format()
        head, _, tail = (tools.results or self.instruction).partition("{input}")
        before, _, after = tools.result.partition("{result}")
        prompt.text += "\n" if i and messages[i - 1].role == "tool" else head
        prompt.text += before
        prompt.say(messages[i])
        prompt.text += after
        if i + 1 == len(messages) or messages[i + 1].role != "tool":
            prompt.text += tail

    def _spoken(self, message: Message) -> str:
        """What the model says: its reasoning, its answer and its calls."""
        if not message.reasoning and not message.tool_calls:
            return message.content
        thought = THOUGHT.format(message.reasoning) if message.reasoning else ""
        return thought + message.content + (self._tool_format().calls(message) if message.tool_calls else "")

    def _tool_format(self) -> ToolFormat:
        if self.tool_format is None:
            able = ", ".join(name for name, entry in TEMPLATES.items() if "tool_format" in entry)
            raise DataError(
                f"template {self.name!r} has no place for tools; leave prompt_template unset for the tokenizer's own "
                f"chat template, or name one that has: {able}."
            )
        return self.tool_format

    def to_jinja(self, bos: str = "") -> str:
        """The same format as a transformers chat template, with `{% generation %}` marks around the trained parts.

        Args:
            bos: what opens the text, where it is not `self.bos`.
        """
        return to_jinja(self, bos)

    def bind(self, tokenizer: Any) -> Template:
        """This format with the tokenizer's own first token, and its eos token where the format ends with that.

        Raises:
            ConfigError: the format ends answers with eos and the tokenizer has none.
        """
        eos = "" if self.suffix_as_eos else tokenizer.eos_token
        if eos is None:
            raise ConfigError(
                f"template {self.name!r} ends answers with the eos token and {tokenizer_name(tokenizer)} has none; "
                "set eos_token in its tokenizer_config.json, or name a template with an end token of its own."
            )
        return replace(self, bos=_bos_text(tokenizer), eos=eos)


class _Prompt:
    """Text up to an answer, and where in it trained messages stand."""

    __slots__ = ("spans", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.spans: tuple[tuple[int, int], ...] = ()

    def say(self, message: Message) -> None:
        """Add the text of a message."""
        start = len(self.text)
        self.text += message.content
        if message.trained and message.content:
            self.spans += ((start, len(self.text)),)

    def take(self) -> Segment:
        return Segment(self.text, False, self.spans)


@dataclass(frozen=True)
class DocumentTemplate(Template):
    """Plain text for continued pre-training: what the tokenizer begins a text with, the text, and the end token.

    All of it but the beginning is trained. Of a row with several texts, such as a question and its answer, the document
    is one behind the other, a line break between them. Chat in this format continues a text.
    """

    @property
    def prompt_markup(self) -> str:
        """Only what ends a document is a control token."""
        return self.markup

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, tools: Tools = ()
    ) -> list[Segment]:
        """The document; without its end token, if it is to be continued."""
        text = "\n".join(message.content for message in messages)
        end = [] if add_generation_prompt else [Segment(self.end, True)]
        return [segment for segment in (Segment(self.bos, False), Segment(text, True), *end) if segment.text]

    def to_jinja(self, bos: str = "") -> str:
        """Nothing: a document says nothing of chat, so a checkpoint keeps the base's own chat template."""
        return ""


def document_template(end: str | None = None) -> DocumentTemplate:
    """The format of documents that end with the token `end`; None is the tokenizer's eos token."""
    return DocumentTemplate("document", "{input}", suffix=end or "", suffix_as_eos=end is not None)


def _template(name: str, entry: Mapping[str, Any]) -> Template:
    tools = entry.get("tool_format")
    return Template(name, **{**entry, "tool_format": ToolFormat(**tools) if tools else None})


PROMPT_TEMPLATE: NameTable[Template] = NameTable(
    "prompt_template", {name: _template(name, entry) for name, entry in TEMPLATES.items()}
)


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
        guess = nearest(tokenizer_name(tokenizer).rstrip("/").split("/")[-1].lower().replace("-", "_"), PROMPT_TEMPLATE)
        raise ConfigError(f"{tokenizer_name(tokenizer)}: the tokenizer has no chat template. {ADVICE}{guess}")
    try:
        return TokenizerTemplate(tokenizer)
    except ValueError:
        name = tokenizer_name(tokenizer)
        raise ConfigError(f"{name}: none of its chat templates is the default one. {ADVICE}") from None


def _from_mapping(mapping: Mapping[str, Any]) -> Template:
    known = {field.name.upper() for field in fields(Template)} - {"BOS", "EOS", "TOOL_FORMAT"}
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


def _bos_text(tokenizer: Any) -> str:
    """What the tokenizer itself puts before a text: "<s>", "[gMASK]<sop>", or nothing."""
    ids = tokenizer("a")["input_ids"]
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    size = next((k for k in range(len(ids)) if ids[k : k + len(bare)] == bare), 0)
    return "".join(tokenizer.convert_ids_to_tokens(ids[:size]))
