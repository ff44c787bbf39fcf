"""From rows to training data: map, validate, render, encode, pack; and a report of what became of every row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from torch.utils.data import DataLoader, Dataset

from medtune.build import Count, Share, Within, checked_by
from medtune.data.collate import StepBatch, collate_step
from medtune.data.encode import EncodedSamples, EncodeReport, encode
from medtune.data.map_fns import named_map_fn
from medtune.data.packing import plan_packs
from medtune.data.readers import rows_of
from medtune.data.records import Conversation
from medtune.data.sampler import StepSampler
from medtune.data.split import split_by_question
from medtune.data.structured import map_rows
from medtune.data.templates import PROMPT_TEMPLATE, Template, TokenizerTemplate, resolve_template
from medtune.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Overflow = Literal["drop", "truncate", "split", "error"]


@dataclass(frozen=True)
class TrainingData:
    """Encoded samples, which of them share a row, and the report."""

    samples: EncodedSamples
    packs: list[list[int]]
    report: DatasetReport
    template: Template | TokenizerTemplate

    def __len__(self) -> int:
        return len(self.packs)

    def fingerprint(self) -> str:
        """sha256 over token ids, mask and packs: the same data, encoded the same way."""
        digest = hashlib.sha256()
        for array in (self.samples.input_ids, self.samples.trained, self.samples.offsets):
            digest.update(np.ascontiguousarray(array).tobytes())
        for pack in self.packs:
            digest.update(np.asarray(pack, dtype=np.int64).tobytes())
        return digest.hexdigest()


@dataclass
class DatasetReport:
    """What became of the rows. It holds counts and places, never text.

    Every row is either encoded or counted in `dropped`: `num_rows == encoded.num_rows + dropped.total()`.
    """

    map_fn: str
    template: str
    num_rows: int
    num_repeated_questions: int
    encoded: EncodeReport
    num_packs: int = 0
    capacity: int | None = None
    dropped: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The report as short lines for the log."""
        told = self.encoded
        room = self.num_packs * (self.capacity or 0)
        fill = f", {told.num_tokens / room:.1%} full" if room else ""
        lines = [
            f"rows {self.num_rows}, samples {told.num_samples}, in {self.num_packs} packs{fill}",
            f"tokens {told.num_tokens}, trained {told.num_trained_tokens} "
            f"({told.num_trained_tokens / max(told.num_tokens, 1):.1%}), longest sample {told.longest}",
            f"format {self.map_fn}, template {self.template}",
        ]
        for reason, count in sorted((self.dropped + Counter(told.dropped)).items()):
            places = [*told.dropped_origins.get(reason, [])[:3], *(["..."] if count > 3 else [])]
            where = f" ({', '.join(places)})" if reason in told.dropped_origins else ""
            lines.append(f"left out {count}: {reason}{where}")
        if told.num_truncated or told.num_split:
            lines.append(f"truncated {told.num_truncated}, split {told.num_split}")
        if told.num_special_in_text:
            lines.append(f"rows whose text holds a control token's text, read as text: {told.num_special_in_text}")
        if self.num_repeated_questions:
            lines.append(f"repeated questions kept on one side of the split: {self.num_repeated_questions}")
        return lines


def _precheck_dataset(
    prompt_template: Any = None,
    val_ratio: float = 0.0,
    dataset_map_fn: Any = None,
    part: str = "train",
    required: bool = False,
    **_: Any,
) -> None:
    if required and part == "val" and not val_ratio:
        raise ConfigError("save_best and early_stopping_patience need validation data: val_ratio or val_data_path.")
    if part == "all" and val_ratio:
        raise ConfigError("val_ratio and val_data_path both name validation data; set one of them.")
    if dataset_map_fn is not None:
        named_map_fn(dataset_map_fn)
    if not 0 <= val_ratio < 1:
        raise ConfigError(f"val_ratio={val_ratio}: wanted a share of the rows, 0 or more and less than 1.")
    if isinstance(prompt_template, str) and prompt_template not in PROMPT_TEMPLATE:
        raise ConfigError(f"unknown prompt_template {prompt_template!r}.{nearest(prompt_template, PROMPT_TEMPLATE)}")


@checked_by(_precheck_dataset)
def build_dataset(
    dataset: Any,
    tokenizer: PreTrainedTokenizerBase,
    max_length: Annotated[int, Within(2)],
    *,
    dataset_map_fn: str | Callable[..., Any] | None = None,
    prompt_template: str | Mapping[str, Any] | Template | None = None,
    system: str = "",
    overflow: Overflow = "drop",
    pack_to_max_length: bool = True,
    drop_empty: bool = False,
    max_dataset_length: Count | None = None,
    val_ratio: Share = 0.0,
    part: Literal["train", "val", "all"] = "train",
    required: bool = False,
    seed: int = 0,
) -> TrainingData | None:
    """Read, map, render, encode and pack a data set.

    Args:
        dataset: rows: what `data.readers.read_data` yields, or a list or `datasets.Dataset` of dicts.
        tokenizer: of the base model.
        max_length: tokens of the longest sample, and of a pack.
        dataset_map_fn: from a row to a conversation: a function, a name (`medtune list-dataset-format`), or None to
            detect it from the first row.
        prompt_template: a name, XTuner's mapping or a Template; None is the tokenizer's own chat template.
        system: system text of conversations that bring none of their own.
        overflow: what happens to a sample of more than `max_length` tokens.
        pack_to_max_length: lay whole samples together into packs of up to `max_length` tokens.
        drop_empty: leave out rows whose answer is empty; else they are a fault.
        max_dataset_length: use only this many rows, drawn by seed.
        val_ratio: share of the rows (0 to 1) set aside for validation, by question, so that repeats never straddle.
        part: which side of that split this is. "val" with `val_ratio` 0 is no data: None. "all" is data to validate
            with, not split. Validation data is not packed.
        required: True if a setting needs this part; the check of a config refuses one that has none.
        seed: of the draw, the split and the packing.

    Raises:
        DataError: a row is broken, empty or, with overflow "error", too long; or nothing is left to train on.
    """
    if part == "val" and not val_ratio:
        return None
    conversations, map_fn = map_rows(rows_of(dataset), dataset_map_fn, system)
    if map_fn is None:
        raise DataError("the data set has no rows.")
    map_name = getattr(map_fn, "__name__", type(map_fn).__name__)
    num_rows = len(conversations)
    dropped: Counter[str] = Counter()
    conversations = _without_empty(conversations, drop_empty, dropped)
    num_repeated = 0
    if val_ratio and part != "all":
        train, val, num_repeated = split_by_question(conversations, 1.0 - val_ratio, seed)
        conversations, others = (train, val) if part == "train" else (val, train)
        dropped["set aside for validation" if part == "train" else "used for training"] += len(others)
    if max_dataset_length is not None and max_dataset_length < len(conversations):
        dropped["not drawn (max_dataset_length)"] += len(conversations) - max_dataset_length
        chosen = np.random.default_rng(seed).permutation(len(conversations))[:max_dataset_length]
        conversations = [conversations[i] for i in sorted(chosen.tolist())]
    template = resolve_template(prompt_template, tokenizer)
    samples, told = encode(conversations, template, tokenizer, max_length, overflow)
    if not len(samples):
        reasons = ", ".join(f"{n} {why}" for why, n in (dropped + Counter(told.dropped)).items()) or "none"
        use = {"train": "train on", "val": "validate with; raise val_ratio", "all": "validate with"}[part]
        raise DataError(f"no sample is left to {use}: {num_rows} rows read, left out: {reasons}.")
    report = DatasetReport(map_name, _template_name(template), num_rows, num_repeated, told, dropped=dropped)
    packs = _packs(samples, max_length, pack_to_max_length and part == "train", seed, report)
    return TrainingData(samples, packs, report, template)


def _packs(samples: EncodedSamples, max_length: int, pack: bool, seed: int, report: DatasetReport) -> list[list[int]]:
    packs = plan_packs(samples.lengths, max_length, seed) if pack else [[i] for i in range(len(samples))]
    report.num_packs = len(packs)
    report.capacity = max_length if pack else None
    return packs


def _template_name(template: Template | TokenizerTemplate) -> str:
    return template.name if isinstance(template, Template) else "the tokenizer's own"


def _without_empty(conversations: list[Conversation], drop: bool, dropped: Counter[str]) -> list[Conversation]:
    empty = [c for c in conversations if any(m.trained and not m.content.strip() for m in c.messages)]
    if not empty:
        return conversations
    if not drop:
        raise DataError(
            f"{empty[0].origin}: the answer is empty ({len(empty)} of {len(conversations)} rows). "
            "Fix the rows, or set drop_empty=True to leave them out."
        )
    dropped["empty answer"] += len(empty)
    without = set(map(id, empty))
    return [c for c in conversations if id(c) not in without]


class _SampleLists(Dataset[list[dict[str, Any]]]):
    """Lists of samples by lists of indices: what one micro-batch of a `StepSampler` item asks for."""

    def __init__(self, samples: EncodedSamples) -> None:
        self.samples = samples

    def __getitem__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self.samples[i] for i in indices]


def step_dataloader(
    dataset: TrainingData | None,
    batch_size: Count = 1,
    accumulative_counts: Count = 1,
    num_workers: Annotated[int, Within(0)] = 0,
    shuffle: bool = True,
    seed: int = 0,
) -> DataLoader[StepBatch] | None:
    """DataLoader whose items are optimizer steps (`StepBatch`); its `batch_sampler` is a `StepSampler`.

    Args:
        dataset: from `build_dataset`; None gives None.
        batch_size: packs in a micro-batch on one device. They lie end to end in one row.
        accumulative_counts: micro-batches in an optimizer step.
        num_workers: processes that prepare batches ahead.
        shuffle: a new order each epoch.
        seed: of the order.
    """
    if dataset is None:
        return None
    import torch.distributed as dist

    together = dist.is_available() and dist.is_initialized()
    sampler = StepSampler(
        dataset.packs,
        batch_size,
        accumulative_counts,
        shuffle,
        seed,
        rank=dist.get_rank() if together else 0,
        world_size=dist.get_world_size() if together else 1,
    )
    return DataLoader(
        _SampleLists(dataset.samples),  # type: ignore[arg-type]
        batch_sampler=sampler,  # type: ignore[arg-type]
        collate_fn=collate_step,
        num_workers=num_workers,
        generator=_own_generator(),
    )


def _own_generator() -> Any:
    """A DataLoader draws a base seed at each epoch; from torch's default generator that would move dropout's."""
    import torch

    return torch.Generator().manual_seed(0)
