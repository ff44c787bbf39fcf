"""Conversations to token ids with the trained tokens marked, and what becomes of those that are too long.

Every rendered segment is tokenised on its own, for training and for chat by the same code, so a training row begins
with exactly the ids that chat would send, and no id depends on text that comes later. Text from the data never turns
into control tokens: a patient who writes "<|im_end|>" does not end the turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from medtune.data.records import Conversation, Message
from medtune.data.templates import Segment, Template, TokenizerTemplate, resolve_template, special_tokens
from medtune.errors import ConfigError, DataError, nearest

IGNORE_INDEX = -100
OVERFLOW_POLICIES = ("drop", "truncate", "split", "error")
TOO_LONG = "longer than max_length"
UNTRAINED = "no trained token"
UNTRAINED_PIECE = "split piece without a trained token"
CHUNK = 1024
"""Conversations per call of the tokenizer."""
ORIGINS_KEPT = 5
CUT = "\ufdd0"
"""Marks, inside a control token's text in the data, where to cut it. A Unicode noncharacter: no text holds it."""


@dataclass(frozen=True)
class EncodedSamples:
    """Token ids of n samples, end to end: sample i is `[offsets[i]:offsets[i + 1]]`."""

    input_ids: np.ndarray
    """(total,) int32."""
    trained: np.ndarray
    """(total,) bool: the tokens the loss is taken on. Never a sample's first: nothing predicts it."""
    offsets: np.ndarray
    """(n + 1,) int64."""
    origins: list[str]

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, i: int) -> dict[str, Any]:
        """`input_ids` (length,) int32, `labels` (length,) int64 with -100 where untrained, and `origin`."""
        i = range(len(self))[i]
        part = slice(self.offsets[i], self.offsets[i + 1])
        labels = np.where(self.trained[part], self.input_ids[part], IGNORE_INDEX).astype(np.int64)
        return {"input_ids": self.input_ids[part], "labels": labels, "origin": self.origins[i]}

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64 tokens per sample."""
        return np.diff(self.offsets)

    @property
    def num_trained(self) -> np.ndarray:
        """(n,) int64 trained tokens per sample."""
        return np.diff(np.concatenate([[0], np.cumsum(self.trained)])[self.offsets])


@dataclass
class EncodeReport:
    """What encoding did to the rows. Tokens are counted over the samples that were kept."""

    num_rows: int = 0
    num_samples: int = 0
    num_tokens: int = 0
    num_trained_tokens: int = 0
    longest: int = 0
    """Tokens of the longest row, before the overflow policy."""
    num_truncated: int = 0
    """Rows cut at max_length."""
    num_split: int = 0
    """Rows cut into several samples."""
    num_special_in_text: int = 0
    """Rows whose text holds a control token's text; it was encoded as ordinary text."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Reason to count, of rows; of pieces of rows for `UNTRAINED_PIECE`."""
    dropped_origins: dict[str, list[str]] = field(default_factory=dict)
    """Reason to the first few origins."""

    def drop(self, reason: str, origin: str) -> None:
        """Count a row or piece that is left out."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        origins = self.dropped_origins.setdefault(reason, [])
        if len(origins) < ORIGINS_KEPT:
            origins.append(origin)


def encode(
    conversations: Iterable[Conversation],
    template: Template | TokenizerTemplate,
    tokenizer: Any,
    max_length: int | None,
    overflow: str = "drop",
) -> tuple[EncodedSamples, EncodeReport]:
    """Encode conversations for training.

    Args:
        conversations: read once, in order.
        template: from `resolve_template`.
        tokenizer: a transformers tokenizer.
        max_length: most tokens a sample may have; None for no limit.
        overflow: what becomes of longer rows. "drop" leaves them out; "truncate" cuts off the end, adding no end
            token; "split" cuts them into samples of `max_length`, the later ones without their prompt; "error" stops.
            Whatever has no trained token left is left out too, and everything is counted in the report.

    Raises:
        ConfigError: an unknown policy or an impossible `max_length`.
        DataError: a conversation the template cannot render, or one too long under "error".
    """
    if overflow not in OVERFLOW_POLICIES:
        known = ", ".join(OVERFLOW_POLICIES)
        raise ConfigError(f"overflow={overflow!r} is unknown.{nearest(overflow, OVERFLOW_POLICIES)} Known are {known}.")
    if max_length is not None and max_length < 2:
        raise ConfigError(f"max_length={max_length}: a sample needs at least 2 tokens, one to predict the other from.")
    encoder = _Encoder(template, tokenizer)
    report = EncodeReport()
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    origins: list[str] = []
    for ids, trained, origin in _encode_rows(conversations, encoder, report):
        for part in _fit(trained, origin, max_length, overflow, report):
            parts.append((ids[part], trained[part]))
            origins.append(origin)
    lengths = [len(ids) for ids, _ in parts]
    samples = EncodedSamples(
        input_ids=np.concatenate([np.empty(0, np.int32), *(ids for ids, _ in parts)]),
        trained=np.concatenate([np.empty(0, np.bool_), *(trained for _, trained in parts)]),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        origins=origins,
    )
    report.num_samples = len(samples)
    report.num_tokens = len(samples.input_ids)
    report.num_trained_tokens = int(samples.trained.sum())
    return samples, report


def encode_prompt(messages: Sequence[Message], template: Template | TokenizerTemplate, tokenizer: Any) -> list[int]:
    """Ids to generate an answer from: those a training row of the same conversation begins with.

    Raises:
        DataError: the template cannot render the messages, or a text is not Unicode.
    """
    encoder = _Encoder(template, tokenizer)
    segments, _ = encoder.render(messages, add_generation_prompt=True)
    return list(chain.from_iterable(encoder.ids([segments])))


def _encode_rows(
    conversations: Iterable[Conversation], encoder: _Encoder, report: EncodeReport
) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Yield (ids, trained, origin) of each row, whole."""
    rows = iter(conversations)
    while chunk := list(islice(rows, CHUNK)):
        rendered: list[list[Segment]] = []
        for row in chunk:
            try:
                segments, special = encoder.render(row.messages)
            except DataError as fault:
                raise DataError(f"{row.origin}: {fault}") from None
            rendered.append(segments)
            report.num_special_in_text += special
        pieces = encoder.ids(rendered)
        sizes = [len(piece) for piece in pieces]
        ids = np.fromiter(chain.from_iterable(pieces), np.int32, sum(sizes))
        trained = np.repeat(np.array([s.trained for segments in rendered for s in segments], np.bool_), sizes)
        piece_ends = np.cumsum([0, *sizes])
        row_ends = piece_ends[np.cumsum([0, *(len(segments) for segments in rendered)])]
        trained[row_ends[:-1][row_ends[:-1] < len(ids)]] = False  # a row may be empty, the last one too
        for row, start, end in zip(chunk, row_ends[:-1], row_ends[1:], strict=True):
            report.num_rows += 1
            report.longest = max(report.longest, int(end - start))
            yield ids[start:end], trained[start:end], row.origin


def _fit(trained: np.ndarray, origin: str, max_length: int | None, overflow: str, report: EncodeReport) -> list[slice]:
    """The parts of a row that become samples. May clear `trained` where a part begins."""
    length = len(trained)
    limit = max_length or length
    parts = [slice(0, length)]
    if length > limit:
        if overflow == "error":
            raise DataError(
                f"{origin}: {length} tokens, and max_length is {limit}; raise max_length, or set overflow to "
                "'drop', 'truncate' or 'split'."
            )
        if overflow == "drop":
            report.drop(TOO_LONG, origin)
            return []
        if overflow == "truncate":
            report.num_truncated += 1
            parts = [slice(0, limit)]
        else:
            report.num_split += 1
            parts = [slice(start, min(start + limit, length)) for start in range(0, length, limit)]
            trained[::limit] = False
    kept = [part for part in parts if trained[part].any()]
    if not kept:
        report.drop(UNTRAINED, origin)
    for _ in range(len(parts) - len(kept) if kept else 0):
        report.drop(UNTRAINED_PIECE, origin)
    return kept


class _Encoder:
    """Renders and tokenises with one template and one tokenizer."""

    def __init__(self, template: Template | TokenizerTemplate, tokenizer: Any) -> None:
        self.template = resolve_template(template, tokenizer)
        self.tokenizer = tokenizer
        # One character is ordinary text whatever the tokenizer calls it, and could not be cut.
        added = [t for t in tokenizer.added_tokens_encoder if len(t) > 1 and t in self.template.markup]
        tokens = {t for t in (*special_tokens(tokenizer), *added) if len(t) > 1}
        self._control = sorted(tokens, key=len, reverse=True)
        pattern = "|".join(map(re.escape, self._control)) or "(?!)"
        self._suspect = re.compile(f"{pattern}|{CUT}")
        self._first_char = re.compile(f"(?={pattern})(.)", re.DOTALL)
        self._anchored = self._needs_anchor()
        self._anchor_ids: dict[str, list[int]] = {}

    def render(self, messages: Sequence[Message], add_generation_prompt: bool = False) -> tuple[list[Segment], bool]:
        """Segments to tokenise one by one, and whether a message held a control token's text.

        Such text is cut after its first character, so that no segment holds it whole.

        Raises:
            DataError: the template cannot render the messages, or a text is not Unicode.
        """
        for i, message in enumerate(messages):
            try:
                message.content.encode()
            except UnicodeEncodeError as fault:
                where = f"messages[{i}], character {fault.start}"
                raise DataError(f"{where}: half a surrogate pair, which no tokenizer reads; mend the text.") from None
        if not any(self._suspect.search(message.content) for message in messages):
            return self.template.render(messages, add_generation_prompt), False
        guarded = [
            replace(message, content=self._first_char.sub(rf"\1{CUT}", message.content.replace(CUT, "")))
            for message in messages
        ]
        segments = self.template.render(guarded, add_generation_prompt)
        return [Segment(text, s.trained) for s in segments for text in s.text.split(CUT) if text], True

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
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def _needs_anchor(self) -> bool:
        """True if a text gets other ids at a beginning than further on.

        SentencePiece-like tokenizers put a space before a text; some control tokens swallow the white space beside
        them. There, a segment is tokenised behind an anchor, whose ids are then taken off.
        """
        newline, alone, behind = self._tokenize(["\n", "a", "\na"])
        strips = any(token.rstrip or token.lstrip for token in self.tokenizer.added_tokens_decoder.values())
        return strips or behind != newline + alone

    def _anchor(self, before: str) -> str:
        """What stands for the text before a segment: the control token it ends with, or a line break."""
        return next((token for token in self._control if before.endswith(token)), "\n")

    def _after(self, anchor: str, ids: list[int], text: str) -> list[int]:
        """Take the anchor's ids off the front; where it merged with the text, do without it."""
        if anchor not in self._anchor_ids:
            self._anchor_ids[anchor] = self._tokenize([anchor])[0]
        head = self._anchor_ids[anchor]
        return ids[len(head) :] if ids[: len(head)] == head else self._tokenize([text])[0]
