"""Token ids in, token ids out: the one generation path, for chat, evaluation hooks, batch inference and rollouts.

A plain decode loop over a transformers or PEFT causal language model and its key-value cache. A batch is padded on
the left and masked, so an answer in a batch is the answer alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LogitsProcessorList
from transformers.generation.logits_process import (
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from medtune.data.templates import stop_strings, stop_token_ids
from medtune.errors import DataError, EnvironmentFault, UsageError

FinishReason = Literal["stop", "length", "interrupted"]
HALF_CHARACTER = "\ufffd"  # what a tokenizer decodes bytes to that are not, or not yet, a character


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen and when an answer ends. Raises UsageError for a value out of range."""

    max_new_tokens: int = 512
    temperature: float = 0.1
    """0 takes the likeliest token (greedy)."""
    top_k: int = 40
    """0 keeps the whole vocabulary."""
    top_p: float = 0.75
    repetition_penalty: float = 1.0
    """Over the prompt and the answer so far; 1 is none."""
    seed: int | None = None
    """None draws differently every time. The global random state is never touched."""
    stop_token_ids: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wanted = {
            "max_new_tokens": (self.max_new_tokens >= 1, "1 or more"),
            "temperature": (self.temperature >= 0, "0 (greedy) or more"),
            "top_k": (self.top_k >= 0, "0 (off) or more"),
            "top_p": (0 < self.top_p <= 1, "more than 0 and at most 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "more than 0"),
        }
        for name, (fits, text) in wanted.items():
            if not fits:
                raise UsageError(f"{name}: got {getattr(self, name)}, wanted {text}.")


@dataclass(frozen=True)
class Completion:
    """One answer."""

    token_ids: list[int]
    """The chosen tokens, without the stop token; a stop string's own tokens are in it."""
    text: str
    """The answer as text: no special tokens, no stop string, no half character at the end."""
    finish_reason: FinishReason
    log_probs: list[float]
    """ln p of each token in `token_ids`, under the model's whole distribution at temperature 1."""


class TextStream:
    """Turns tokens into text as they come, and gives out only what no later token can change.

    A half UTF-8 character waits for its other half, and text that may begin a stop string waits until it is clear.
    """

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self.text = ""
        """Everything given out so far."""
        self.stopped = False
        """True once a stop string was met; the text ends before it."""
        self._tokenizer = tokenizer
        self._stops = [stop for stop in stops if stop]
        self._window: list[int] = []  # the tokens given out last, then those still waiting
        self._given = 0  # how many of the window are given out: context, for a word's leading space
        self._held = ""  # decoded, but perhaps the beginning of a stop string

    def push(self, token_ids: Sequence[int]) -> str:
        """Take the next tokens; returns the text that is now certain, often ""."""
        self._window += token_ids
        text = self._decode(self._window)
        if self.stopped or text.endswith(HALF_CHARACTER):
            return ""
        new = text[len(self._decode(self._window[: self._given])) :]
        if new:
            self._window = self._window[self._given :]
            self._given = len(self._window)
        return self._release(new)

    def finish(self) -> str:
        """No more tokens will come: returns what was held back, without a half character."""
        if self.stopped:
            return ""
        text = self._decode(self._window).rstrip(HALF_CHARACTER)
        return self._release(text[len(self._decode(self._window[: self._given])) :], last=True)

    def _decode(self, token_ids: list[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def _release(self, new: str, last: bool = False) -> str:
        text, self._held = self._held + new, ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            text = text[: min(found)]
        elif not last:
            clear = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
            text, self._held = text[:clear], text[clear:]
        self.text += text
        return text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin, but do not complete, `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)


def context_length(model: Any) -> int | None:
    """How many positions, prompt and answer together, the model was made for; None where its config does not say."""
    return getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)


def add_stops(
    sampling: Sampling, model: Any, tokenizer: Any, template: Any | None = None, words: Iterable[str] = ()
) -> Sampling:
    """Return `sampling` with all stops that apply: the model's and tokenizer's end, the template's, and `words`."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    strings = [*sampling.stop_strings, *words]
    if template is not None:
        ids |= stop_token_ids(template, tokenizer)
        strings += stop_strings(template, tokenizer)
    return dataclasses.replace(
        sampling, stop_token_ids=sampling.stop_token_ids | ids, stop_strings=tuple(dict.fromkeys(strings))
    )


class _Answer:
    """One row of the batch while it grows."""

    def __init__(self, limit: int, stream: TextStream, on_text: Callable[[str], None] | None, live: bool) -> None:
        self.finish_reason: FinishReason | None = None
        self.token_ids: list[int] = []
        self.log_probs: list[float] = []
        self._limit = limit
        self._stream = stream
        self._on_text = on_text
        self._live = live  # the text matters at every token; else it is decoded once, at the end

    def add(self, token: int, log_prob: float) -> None:
        """Take the next token."""
        self.token_ids.append(token)
        self.log_probs.append(log_prob)
        if self._live:
            self._give(self._stream.push([token]))
        if self._stream.stopped:
            self.finish("stop")
        elif len(self.token_ids) == self._limit:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        """No more tokens will come."""
        self.finish_reason = reason
        if not self._live:
            self._stream.push(self.token_ids)
        self._give(self._stream.finish())

    def completion(self) -> Completion:
        """The finished answer."""
        assert self.finish_reason is not None
        return Completion(self.token_ids, self._stream.text, self.finish_reason, self.log_probs)

    def _give(self, text: str) -> None:
        if text and self._on_text is not None:
            self._on_text(text)


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    on_token: Callable[[int, int], None] | None = None,
    on_text: Callable[[int, str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[Completion]:
    """Answer every prompt; the whole list is one batch.

    Args:
        model: a transformers causal language model or a PEFT model around one, in any mode; its mode is restored.
        tokenizer: turns answers into text; prompts are ids already (`data.encode.encode_prompt`).
        prompts: token ids, not empty, of any lengths.
        sampling: a stop string that is a special token of the tokenizer counts as a stop token.
        on_token: called with (row, token id) for each token of an answer as it is chosen.
        on_text: called with (row, text) whenever more of an answer's text is certain.
        should_stop: asked before every step; True ends all unfinished answers as "interrupted".

    Raises:
        DataError: a prompt is empty, or fills the model's context.
        EnvironmentFault: the model's output is not a number.
    """
    limits = _answer_limits(prompts, sampling.max_new_tokens, context_length(model))
    special = tokenizer.get_added_vocab()
    stop_ids = sampling.stop_token_ids | {special[stop] for stop in sampling.stop_strings if stop in special}
    stops = [stop for stop in sampling.stop_strings if stop not in special]
    answers = []
    for row, limit in enumerate(limits):
        give = functools.partial(on_text, row) if on_text else None
        answers.append(_Answer(limit, TextStream(tokenizer, stops), give, live=bool(stops or on_text)))
    with _evaluating(model), torch.no_grad():
        steps = _steps(model, prompts, sampling)
        while any(answer.finish_reason is None for answer in answers):
            if should_stop is not None and should_stop():
                break
            for row, (answer, token, log_prob) in enumerate(zip(answers, *next(steps), strict=True)):
                if answer.finish_reason is not None:
                    continue
                if token in stop_ids:
                    answer.finish("stop")
                    continue
                if on_token is not None:
                    on_token(row, token)
                answer.add(token, log_prob)
    for answer in answers:
        if answer.finish_reason is None:
            answer.finish("interrupted")
    return [answer.completion() for answer in answers]


def _answer_limits(prompts: Sequence[Sequence[int]], max_new_tokens: int, context: int | None) -> list[int]:
    """How many tokens each row may add before it is full."""
    limits = []
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise DataError(f"prompt {row} is empty: a model needs at least one token to go on from.")
        room = max_new_tokens if context is None else context - len(prompt)
        if room < 1:
            raise DataError(
                f"prompt {row} has {len(prompt)} tokens and leaves no room for an answer: "
                f"the model's context (max_position_embeddings) is {context}. Shorten it."
            )
        limits.append(min(max_new_tokens, room))
    return limits


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and each module's own mode back after.

    It also stops activation checkpointing, which transformers applies in training mode alone and which would drop
    the cache.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _steps(model: Any, prompts: Sequence[Sequence[int]], sampling: Sampling) -> Iterator[tuple[list[int], list[float]]]:
    """Yield each step's tokens and their log-probabilities, one of each per row, without end.

    Rows stay in the batch after their answer is finished, so that one row's length never changes another row's draws.
    """
    device = next((p.device for p in model.parameters() if p.device.type != "meta"), torch.device("cpu"))
    ids, mask = (tensor.to(device) for tensor in _left_pad(prompts))
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    last_position = (context_length(model) or torch.iinfo(torch.long).max) - 1
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    extra = {"logits_to_keep": 1} if model._supports_logits_to_keep() else {}
    choose = _chooser(sampling, device)
    inputs = ids
    while True:
        output = model(
            input_ids=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **extra,
        )
        logits = output.logits[:, -1].to(device, torch.float32)
        if torch.isnan(logits).any() or (logits == torch.inf).any():
            raise EnvironmentFault(
                "the model's logits are not numbers (NaN). In fp16 they overflow easily: use bf16 or fp32; "
                "if it stays, the weights themselves are broken."
            )
        chosen = choose(ids, logits)
        log_probs = logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
        yield chosen.tolist(), log_probs.tolist()
        inputs = chosen[:, None]
        ids = torch.cat([ids, inputs], dim=1)
        mask = torch.cat([mask, torch.ones_like(inputs)], dim=1)
        positions = (positions[:, -1:] + 1).clamp(max=last_position)  # a finished row may be past the end


def _left_pad(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both (B, longest). Each row is filled with its own first token.

    The filling is masked, so any id will do; the row's own adds nothing to what the repetition penalty looks at.
    """
    longest = max(map(len, prompts))
    ids = [[prompt[0]] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def _chooser(sampling: Sampling, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A function from all ids so far (B, T) and the next logits (B, V) to the next token of each row (B,)."""
    processors: Any = LogitsProcessorList()  # transformers says LongTensor where it means Tensor
    if sampling.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(float(sampling.repetition_penalty)))
    if sampling.temperature == 0:
        return lambda ids, logits: processors(ids, logits).argmax(-1)
    if sampling.temperature != 1:
        processors.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        processors.append(TopPLogitsWarper(float(sampling.top_p)))
    generator = torch.Generator(device)
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed)

    def draw(ids: Tensor, logits: Tensor) -> Tensor:
        probabilities = processors(ids, logits).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=generator)[:, 0]

    return draw
