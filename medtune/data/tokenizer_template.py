"""A tokenizer's own Jinja chat template: what of its text is prompt, what is answer, and in which context.

An answer is what the model says after the prompt that chat would send, with the token that ends it. So an answer is
found by rendering that prompt (`add_generation_prompt`) and the conversation up to the answer. Some templates write
earlier turns in another way than they wrote them as the last one, as those that leave out old reasoning do. There the
later prompt does not begin with the earlier prompt and answer, and the later answer gets a row of its own, which holds
exactly what chat would have sent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from medtune.data.chat_template import THOUGHT, TemplateFault, render_chat_template
from medtune.data.records import Message
from medtune.data.segments import Segment
from medtune.data.skeletons import TOOL_PROBE, Shape, Skeleton, Tools, cut_at_probes, probe_of, shape_of, what_is_told
from medtune.data.template_table import TEMPLATES
from medtune.errors import DataError

GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
MARKS = re.compile(r"(\{%-?\s*)(end)?generation(\s*-?%\})")
OPENED = re.compile(r"<think>\s*\Z")
PROBE = "probe 0123456789"
NONCHARACTER = "\ufdd1"
MOST_SKELETONS = 512
ADVICE = f"Name a format with prompt_template: {', '.join(TEMPLATES)}."


@dataclass
class _Row:
    """One training row while it is put together."""

    first: int
    """Index of the first message that is its own; those before are context."""
    pieces: list[tuple[str, int]] = field(default_factory=list)
    """Text, and the index of the message that it is the answer of; -1 for what is no answer."""
    text: str = ""
    """All pieces, up to the end of the last answer."""
    tail: str = ""
    upto: int = 0
    """The text is that of the first `upto` messages."""

    def add(self, text: str, index: int = -1) -> None:
        if text:
            self.pieces.append((text, index))
            self.text += text

    def segments(self, messages: Sequence[Message]) -> list[Segment]:
        pieces = [*self.pieces, (self.tail, -1)] if self.tail else self.pieces
        return [Segment(text, index >= 0 and messages[index].trained) for text, index in pieces]


class TokenizerTemplate:
    """A tokenizer's own Jinja chat template, with the interface of `Template`.

    Rendered by transformers in its immutable sandbox. `{% generation %}` marks, where it has them, say what of an
    answer is trained.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.name = tokenizer_name(tokenizer)
        self.chat_template: str = tokenizer.get_chat_template()
        self.marked = bool(GENERATION_MARK.search(self.chat_template))
        # The same text without the marks' bookkeeping; where it were not the same, the row is rendered with care.
        self._unmarked = MARKS.sub(lambda m: m[1] + ("endif" if m[2] else "if true") + m[3], self.chat_template)
        self._variables = dict(tokenizer.special_tokens_map)
        self._eos: str = tokenizer.eos_token or ""
        self._skeletons: dict[Shape, list[Skeleton] | DataError | None] = {}
        self._after_answer = ""
        self._thought_in_content = False
        self._thought_in_content = not self._reads_reasoning()
        self.stop_words = self._find_stop_words(tokenizer)

    @property
    def markup(self) -> str:
        """The end-of-turn tokens. Other tokens of the format, such as `<think>`, an answer may well hold."""
        return "\0".join(self.stop_words)

    @property
    def prompt_markup(self) -> str:
        """The same for text that no model says: there all tokens that the template writes are control tokens."""
        return self.chat_template

    def to_jinja(self, bos: str = "") -> str:
        """The chat template itself; it writes its own bos."""
        return self.chat_template

    def render(
        self, messages: Sequence[Message], add_generation_prompt: bool = False, tools: Tools = ()
    ) -> list[Segment]:
        """Render a conversation as one row: the last of `render_rows`, or the prompt for the next answer.

        Raises:
            DataError: the template refuses the conversation, leaves a part of it out, or hides where its answers are.
        """
        rows = self._rows(messages, add_generation_prompt, tools)
        return rows[-1].segments(messages)

    def render_rows(self, messages: Sequence[Message], tools: Tools = ()) -> list[list[Segment]]:
        """Render a conversation for training: the rows that hold its trained parts, each once.

        One row, unless the template rewrites earlier turns. A row begins with the prompt chat would send for its first
        answer. Without a trained part it is one row all the same.

        Raises:
            DataError: as `render`.
        """
        skeletons = self._skeletons_of(messages, tools)
        if skeletons:
            for contents in ([m.content for m in messages], [m.content.strip() for m in messages]):
                filled = self._fill(skeletons, messages, contents)
                if filled is not None:
                    return filled
        rows = self._rows(messages, False, tools)
        told = [self._with_spans(row, messages, tools) for row in rows]
        return [segments for segments in told if any(s.trained or s.spans for s in segments)] or told[-1:]

    # -- exactly, by two renderings for every answer --------------------------------------------------------------

    def _rows(self, messages: Sequence[Message], add_generation_prompt: bool, tools: Tools) -> list[_Row]:
        rows: list[_Row] = []
        for i, message in enumerate(messages):
            if message.role != "assistant":
                continue
            prompt, _ = self._render(messages[:i], True, tools)
            row = _row_for(prompt, rows)
            told, pieces = self._answer(messages[: i + 1], prompt, tools)
            for text, is_answer in pieces:
                row.add(text, i if is_answer else -1)
            row.upto = i + 1
            row.tail = told[len(row.text) :] if told.startswith(row.text) else ""
        if add_generation_prompt or not rows or rows[-1].upto < len(messages):
            text, _ = self._render(messages, add_generation_prompt, tools)
            _row_for(text, rows).upto = len(messages)
            rows[-1].tail = ""
        return rows

    def _answer(self, messages: Sequence[Message], prompt: str, tools: Tools) -> tuple[str, list[tuple[str, bool]]]:
        """The text, and what the last message adds to its prompt: pieces, and whether each is trained."""
        told, spans = self._render(messages, False, tools, self.marked)
        answers = sum(message.role == "assistant" for message in messages)
        if self.marked and (len(spans) != answers or spans[-1][1] <= len(prompt) < len(told)):
            raise DataError(f"{self.name}: its chat template marks {len(spans)} of {answers} answers. {ADVICE}")
        thought = _thought(messages[-1])
        if not told.startswith(prompt) or thought not in told[len(prompt) :]:
            alone = "" if thought or OPENED.search(prompt) else self._alone(messages[-1])
            text = self._ended(alone) if alone and told.endswith(alone) else self._unhide(told, prompt, thought)
            return told, [(text, True)]
        if not self.marked:
            return told, [(self._ended(told[len(prompt) :]), True)]
        start, end = max(spans[-1][0], len(prompt)), spans[-1][1]
        return told, [(told[len(prompt) : start], False), (told[start:end], True)]

    def _alone(self, message: Message) -> str:
        """How the template writes an answer to a lone question, with what comes after it; "" if that cannot be told."""
        question = Message("user", PROBE)
        prompt, _ = self._render([question], True, ())
        told, _ = self._render([question, message], False, ())
        return told[len(prompt) :] if told.startswith(prompt) else ""

    def _unhide(self, told: str, prompt: str, thought: str) -> str:
        """The answer of a template that writes no reasoning, not even the last answer's, though its prompt may ask."""
        opened = OPENED.search(prompt)
        base = prompt[: opened.start()] if opened else prompt
        answer = self._ended(told[len(base) :])
        text = base + THOUGHT.format(thought) + (answer.lstrip("\n") if thought else answer)
        if not told.startswith(base) or not text.startswith(prompt) or (thought and thought in told[len(base) :]):
            raise DataError(
                f"{self.name}: its chat template writes an answer in another place than where its prompt for one "
                f"ends. {ADVICE}"
            )
        return text[len(prompt) :]

    def _ended(self, text: str) -> str:
        """An answer up to its end-of-turn token; what comes after it is the separator. Without one it gets eos."""
        for word in self.stop_words:  # the template's own first: some write eos once more, at the end of the text
            if word in text:
                return text[: text.rfind(word) + len(word)]
        if not self._eos:
            raise DataError(
                f"{self.name}: its chat template writes nothing after an answer, and the tokenizer has no eos token; "
                "set eos_token in its tokenizer_config.json."
            )
        return text.removesuffix(self._after_answer) + self._eos

    def _with_spans(self, row: _Row, messages: Sequence[Message], tools: Tools) -> list[Segment]:
        """The row's segments, with the texts of trained questions and results found by rendering without them."""
        segments = row.segments(messages)
        for i in range(row.first, row.upto):
            if messages[i].role == "assistant" or not messages[i].trained or not messages[i].content.strip():
                continue
            others = [*messages[:i], replace(messages[i], content=NONCHARACTER), *messages[i + 1 :]]
            other = next(r for r in self._rows(others, False, tools) if r.upto >= row.upto).segments(others)
            for k, (mine, theirs) in enumerate(zip(segments, other, strict=False)):
                if mine.text != theirs.text:
                    start = _num_equal(mine.text, theirs.text)
                    end = len(mine.text) - _num_equal(mine.text[:start:-1], theirs.text[:start:-1])
                    segments[k] = mine._replace(spans=(*mine.spans, (start, end)))
                    break
        return segments

    # -- fast, by one rendering for every row ---------------------------------------------------------------------

    def _fill(
        self, skeletons: list[Skeleton], messages: Sequence[Message], contents: list[str]
    ) -> list[list[Segment]] | None:
        """The rows with these contents in their places, or None if the template would write something else."""
        own = [s for s in skeletons if any(message.trained for message in messages[s.first : s.upto])]
        rows = []
        for skeleton in own or skeletons[-1:]:
            segments = skeleton.fill(messages, contents)
            text, _ = self._render(messages[: skeleton.upto], False, ())
            if "".join(segment.text for segment in segments) != text + skeleton.extra:
                return None
            rows.append(segments)
        return rows

    def _skeletons_of(self, messages: Sequence[Message], tools: Tools) -> list[Skeleton] | None:
        """The skeletons of all conversations of the same shape; None where its rows have to be rendered one by one.

        Raises:
            DataError: the template leaves out a part of such conversations.
        """
        shape = shape_of(messages, tools)
        if shape not in self._skeletons:
            if len(self._skeletons) >= MOST_SKELETONS:
                self._skeletons.clear()
            self._skeletons[shape] = self._learn(messages, tools)
        known = self._skeletons[shape]
        if isinstance(known, DataError):
            raise DataError(str(known))
        return known

    def _learn(self, messages: Sequence[Message], tools: Tools) -> list[Skeleton] | DataError | None:
        probes = [probe_of(message, i) for i, message in enumerate(messages)]
        tool_probes = [TOOL_PROBE] if tools else []
        try:
            rows = self._rows(probes, False, tool_probes)
        except DataError:
            return None  # it may refuse the probes alone; what it says of the conversation itself is to the point
        text = "".join(row.text + row.tail for row in rows)
        for what, words in what_is_told(probes, tool_probes):
            if any(word not in text for word in words):
                return DataError(f"{self.name}: its chat template leaves out {what}. {ADVICE}")
        if tools or any(m.reasoning or m.tool_calls or m.role == "tool" for m in messages):
            return None
        skeletons = []
        for row in rows:
            told, _ = self._render(probes[: row.upto], False, ())
            whole = row.text + row.tail
            pieces = [*row.pieces, (row.tail, -1)] if row.tail else row.pieces
            if not whole.startswith(told):
                return None
            cut = [(cut_at_probes(piece, probes), index) for piece, index in pieces]
            skeletons.append(Skeleton(row.first, cut, row.upto, whole[len(told) :]))
        return skeletons

    def _render(
        self, messages: Sequence[Message], add_generation_prompt: bool, tools: Tools, marked: bool = False
    ) -> tuple[str, list[tuple[int, int]]]:
        """The text and, if `marked`, the (start, end) characters that marks enclose."""
        try:
            return render_chat_template(
                self.chat_template if marked else self._unmarked,
                messages,
                self._variables,
                marked,
                add_generation_prompt,
                tools,
                self._thought_in_content,
            )
        except TemplateFault as fault:
            said = f" ({fault})" if str(fault) else ""
            raise DataError(f"{self.name}: its chat template refuses this conversation{said}. {ADVICE}") from None

    def _reads_reasoning(self) -> bool:
        try:
            return (
                PROBE in self._render([Message("user", "1"), Message("assistant", "2", reasoning=PROBE)], False, ())[0]
            )
        except DataError:
            return False

    def _find_stop_words(self, tokenizer: Any) -> tuple[str, ...]:
        """The special token that the template writes after an answer, and eos.

        Where it writes none, as GLM's does, the token that opens the next question is a stop too: such a model says it.
        """
        words = [self._eos] if self._eos else []
        asked = [Message("user", "1"), Message("assistant", PROBE)]
        try:
            self._after_answer = self._render(asked, False, ())[0].rpartition(PROBE)[2]
            ends = _first_token(self._after_answer, tokenizer)
            nexts = self._render([*asked, Message("user", "2")], False, ())[0].rpartition(PROBE)[2] if not ends else ""
        except DataError:
            return tuple(words)
        return tuple(dict.fromkeys([*ends, *words, *_first_token(nexts, tokenizer)]))


def _first_token(text: str, tokenizer: Any) -> list[str]:
    """The special token that comes first in a text, the longest of those; none if there is none."""
    found = [(text.find(token), -len(token), token) for token in special_tokens(tokenizer) if token in text]
    return [token for _, _, token in sorted(found)[:1]]


def _num_equal(a: str, b: str) -> int:
    """How many characters both texts begin with."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _row_for(text: str, rows: list[_Row]) -> _Row:
    """The last row with what `text` adds to it, or a new last one if the text does not begin with that row's."""
    if not rows or not text.startswith(rows[-1].text):
        rows.append(_Row(rows[-1].upto if rows else 0))
    rows[-1].add(text[len(rows[-1].text) :])
    return rows[-1]


def _thought(message: Message) -> str:
    """The reasoning of an answer, where it has any, also if the data holds it in the content."""
    if message.reasoning or "</think>" not in message.content:
        return message.reasoning.strip()
    return message.content.partition("</think>")[0].rpartition("<think>")[2].strip()


def tokenizer_name(tokenizer: Any) -> str:
    """Where the tokenizer came from, for messages."""
    return str(getattr(tokenizer, "name_or_path", "") or "the tokenizer")


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts a tokenizer turns into special tokens, wherever they stand."""
    return [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
