"""Conversations to token ids with the trained tokens marked.

Every rendered segment is tokenised on its own, for training and for chat by the same code, so a training row begins
with exactly the ids that chat would send, and no id depends on text that comes later. Text from the data never turns
into control tokens: a patient who writes "<|im_end|>" does not end the turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from medtune.data.control_text import CUT, ControlText
from medtune.data.kinds import conversations_of
from medtune.data.overflow import EncodeReport, check_limits, fit_samples
from medtune.data.placeholders import unfilled_placeholders
from medtune.data.records import Conversation, Message, Preference, Record
from medtune.data.segments import Segment, cut_segment, in_spans
from medtune.data.split import normalise, question_of
from medtune.data.store import IGNORE_INDEX, QUESTION_BYTES, EncodedRows, EncodedSamples, join_rows
from medtune.data.templates import (
    DocumentTemplate,
    Template,
    TokenizerTemplate,
    Tools,
    resolve_template,
    special_tokens,
)
from medtune.errors import ConfigError, DataError

__all__ = ["IGNORE_INDEX", "Encoder", "encode", "encode_prompt"]

ROWS_AT_ONCE = 128
"""Conversations per call of the tokenizer; with more, its results fall out of the processor's cache."""
CHARACTERS_AT_ONCE = 1 << 20


class LeftOut(NamedTuple):
    """A row that is not trained on, and why."""

    reason: str
    origin: str


def encode(
    conversations: Iterable[Conversation],
    template: Template | TokenizerTemplate,
    tokenizer: Any,
    max_length: int | None,
    overflow: str = "drop",
) -> tuple[EncodedSamples, EncodeReport]:
    """Encode conversations for training, in memory.

    Args:
        conversations: read once, in order.
        template: from `resolve_template`.
        tokenizer: a transformers tokenizer.
        max_length, overflow: as for `overflow.fit_samples`.

    Raises:
        ConfigError: an unknown policy or an impossible `max_length`.
        DataError: a conversation the template cannot render, or one too long under "error".
    """
    check_limits(max_length, overflow)
    rows = join_rows(Encoder(template, tokenizer).batches(conversations))
    return fit_samples(rows, np.arange(len(rows)), max_length, overflow)


def encode_prompt(
    messages: Sequence[Message], template: Template | TokenizerTemplate, tokenizer: Any, tools: Tools = ()
) -> list[int]:
    """Ids to generate an answer from: those a training row of the same conversation begins with.

    Raises:
        DataError: the template cannot render the messages, or a text is not Unicode.
    """
    encoder = Encoder(template, tokenizer)
    messages, tools, special = encoder.control.guard(messages, tools)
    segments = encoder.template.render(messages, add_generation_prompt=True, tools=tools)
    if special:
        segments = [piece for segment in segments for piece in cut_segment(segment, CUT)]
    return list(chain.from_iterable(encoder.ids([segments])))


class Encoder:
    """Renders and tokenises with one template and one tokenizer."""

    def __init__(self, template: Template | TokenizerTemplate, tokenizer: Any) -> None:
        self.template = resolve_template(template, tokenizer)
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_encoder
        self.control = ControlText(
            [*special_tokens(tokenizer), *(token for token in added if token in self.template.markup)],
            [token for token in added if token in self.template.prompt_markup],
        )
        self._opening = self.template.bos if isinstance(self.template, DocumentTemplate) else ""
        self._anchored = self._needs_anchor()
        self._anchor_ids: dict[str, list[int]] = {}

    def batches(self, records: Iterable[Record | LeftOut]) -> Iterator[EncodedRows]:
        """Encode records in batches, in order; what is left out keeps its place, with its reason.

        A preference becomes a row of two parts, chosen and rejected.

        Raises:
            DataError: a record the template cannot render, with its place.
        """
        batch = _Batch(self)
        for record in records:
            batch.add(record)
            if len(batch) == ROWS_AT_ONCE or batch.characters >= CHARACTERS_AT_ONCE:
                yield batch.encoded()
                batch = _Batch(self)
        if len(batch):
            yield batch.encoded()

    def render(self, conversation: Conversation) -> tuple[list[list[Segment]], bool]:
        """Rows of segments to tokenise one by one, and whether a message held a control token's text.

        Such text is cut after its first character, so that no segment holds it whole.

        Raises:
            DataError: the template cannot render the messages, or a text is not Unicode.
        """
        messages, tools, special = self.control.guard(conversation.messages, conversation.tools)
        rows = self.template.render_rows(messages, tools)
        if special:
            rows = [[piece for segment in row for piece in cut_segment(segment, CUT)] for row in rows]
        return rows, special

    def ids(self, rows: Sequence[Sequence[Segment]]) -> list[list[int]]:
        """Ids of every segment of every row, in order."""
        texts = [segment.text for row in rows for segment in row]
        if not self._anchored:
            return self._tokenize(texts)
        anchors = [self._anchor(row[i - 1].text) if i else "" for row in rows for i in range(len(row))]
        anchored = self._tokenize([anchor + text for anchor, text in zip(anchors, texts, strict=True)])
        return [
            self._after(anchor, ids, text) if anchor else ids
            for anchor, ids, text in zip(anchors, anchored, texts, strict=True)
        ]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if not self.tokenizer.is_fast:
            return self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        # The backend itself: transformers builds offsets and masks around it that double the time.
        backend = self.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = False
        distinct = list(dict.fromkeys(texts))  # what stands between answers is often the same
        found = backend.encode_batch_fast(distinct, add_special_tokens=False)
        ids = dict(zip(distinct, (encoding.ids for encoding in found), strict=True))
        return [ids[text] for text in texts]

    def offsets(self, text: str, ids: list[int]) -> list[tuple[int, int]]:
        """The (start, end) characters of each of a segment's ids.

        Raises:
            ConfigError: the tokenizer cannot tell.
        """
        if not self.tokenizer.is_fast:
            raise ConfigError("train_on='all' needs a fast tokenizer, one with a tokenizer.json; this one has none.")
        backend = self.tokenizer.backend_tokenizer
        for anchor in ("", "\n", *self.control.tokens):  # the one it was tokenised behind gives the same ids
            told = backend.encode(anchor + text, add_special_tokens=False)
            if told.ids[len(told.ids) - len(ids) :] == ids:
                places = told.offsets[len(told.ids) - len(ids) :]
                return [(start - len(anchor), end - len(anchor)) for start, end in places]
        raise ConfigError("train_on='all': this tokenizer does not say which characters its tokens stand for.")

    def _needs_anchor(self) -> bool:
        """True if a text gets other ids at a beginning than further on.

        SentencePiece-like tokenizers put a space before a text; some control tokens swallow the white space beside
        them. There, a segment is tokenised behind an anchor, whose ids are then taken off.
        """
        newline, alone, behind = self._tokenize(["\n", "a", "\na"])
        strips = any(token.rstrip or token.lstrip for token in self.tokenizer.added_tokens_decoder.values())
        return strips or behind != newline + alone

    def _anchor(self, before: str) -> str:
        """What stands for the text before a segment: the control token it ends with, or a line break.

        Nothing stands for what opens a document: its text gets the ids that the tokenizer gives a text by itself.
        """
        if self._opening and before == self._opening:
            return ""
        return next((token for token in self.control.tokens if before.endswith(token)), "\n")

    def _after(self, anchor: str, ids: list[int], text: str) -> list[int]:
        """Take the anchor's ids off the front; where it merged with the text, do without it."""
        if anchor not in self._anchor_ids:
            self._anchor_ids[anchor] = self._tokenize([anchor])[0]
        head = self._anchor_ids[anchor]
        return ids[len(head) :] if ids[: len(head)] == head else self._tokenize([text])[0]


class _Batch:
    """Rendered conversations that are tokenised by one call."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.parts: list[list[Segment]] = []
        self.num_parts: list[int] = []
        self.special: list[bool] = []
        self.unfilled: list[bool] = []
        self.good: list[bool] = []
        self.questions: list[bytes] = []
        self.origins: list[bytes] = []
        self.reasons: list[bytes] = []
        self.characters = 0

    def __len__(self) -> int:
        return len(self.num_parts)

    def add(self, record: Record | LeftOut) -> None:
        """Render one record; one that is left out has its reason instead."""
        reason, special, question = "", False, bytes(QUESTION_BYTES)
        parts: list[list[Segment]] = []
        if isinstance(record, LeftOut):
            reason = record.reason
        else:
            try:
                parts, special = self._rendered(record)
            except DataError as fault:
                raise DataError(f"{record.origin}: {fault}") from None
            question = _digest(conversations_of(record)[0])
            self.characters += sum(len(segment.text) for segments in parts for segment in segments)
        self.parts += parts
        self.num_parts.append(len(parts))
        self.special.append(special)
        self.unfilled.append(
            not isinstance(record, LeftOut) and any(map(_leaves_a_name_open, conversations_of(record)))
        )
        self.good.append(isinstance(record, Conversation) and record.label is True)
        self.questions.append(question)
        self.origins.append(record.origin.encode("utf-8", "backslashreplace"))
        self.reasons.append(reason.encode())

    def _rendered(self, record: Record) -> tuple[list[list[Segment]], bool]:
        """As `Encoder.render`; of a pair, one row for each answer."""
        if not isinstance(record, Preference):
            return self.encoder.render(record)
        rendered = [self.encoder.render(conversation) for conversation in record.conversations()]
        if any(len(parts) != 1 for parts, _ in rendered):
            raise DataError("the template writes an answer of several messages in several rows; a pair needs one each.")
        return [parts[0] for parts, _ in rendered], any(special for _, special in rendered)

    def encoded(self) -> EncodedRows:
        """The batch as arrays."""
        pieces = self.encoder.ids(self.parts)
        sizes = np.fromiter(map(len, pieces), np.int64, len(pieces))
        ids = np.fromiter(chain.from_iterable(pieces), np.int32, int(sizes.sum()))
        marks = np.fromiter((s.trained for segments in self.parts for s in segments), np.bool_, len(pieces))
        trained = np.repeat(marks, sizes)
        piece_ends = np.concatenate([[0], np.cumsum(sizes)])
        ends = piece_ends[np.cumsum([0, *map(len, self.parts)])]
        self._mark_spans(pieces, piece_ends, trained)
        firsts = ends[:-1]
        trained[firsts[firsts < len(ids)]] = False  # a row may be empty, the last one too
        counted = np.concatenate([[0], np.cumsum(trained)])
        return EncodedRows(
            input_ids=ids,
            trained=trained,
            lengths=np.diff(ends).astype(np.int64),
            num_trained=np.diff(counted[ends]).astype(np.int64),
            num_parts=np.array(self.num_parts, np.int64),
            special=np.array(self.special, np.bool_),
            unfilled=np.array(self.unfilled, np.bool_),
            good=np.array(self.good, np.bool_),
            questions=np.frombuffer(b"".join(self.questions), np.uint8).reshape(-1, QUESTION_BYTES),
            origins=np.frombuffer(b"".join(self.origins), np.uint8),
            origin_lengths=np.array([len(origin) for origin in self.origins], np.int64),
            reasons=np.frombuffer(b"".join(self.reasons), np.uint8),
            reason_lengths=np.array([len(reason) for reason in self.reasons], np.int64),
        )

    def _mark_spans(self, pieces: list[list[int]], piece_ends: np.ndarray, trained: np.ndarray) -> None:
        """Mark the trained tokens of segments that are not trained as a whole."""
        segments = [segment for row in self.parts for segment in row]
        for segment, ids, start in zip(segments, pieces, piece_ends[:-1], strict=True):
            if segment.spans:
                trained[start : start + len(ids)] = in_spans(self.encoder.offsets(segment.text, ids), segment.spans)


def _leaves_a_name_open(conversation: Conversation) -> bool:
    texts = [text for m in conversation.messages for text in (m.content, m.reasoning)]
    return any("<" in text or "{{" in text for text in texts) and bool(unfilled_placeholders(conversation))


def _digest(conversation: Conversation) -> bytes:
    question = normalise(question_of(conversation))
    return hashlib.blake2b(question.encode("utf-8", "surrogatepass"), digest_size=QUESTION_BYTES).digest()
