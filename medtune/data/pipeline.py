"""From rows to training data: prepared, selected, cut to length and packed; and a report of every row's fate."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from medtune.build import Count, Share, Within, checked_by
from medtune.data.cache import data_identity
from medtune.data.kinds import Kind, check_kind, mismatched_partners, whole_pairs, with_answer_of
from medtune.data.map_fns import named_map_fn
from medtune.data.overflow import EncodeReport, Overflow, fit_samples
from medtune.data.packing import mix_packs, plan_packs
from medtune.data.placeholders import check_placeholders
from medtune.data.prepare import Recipe, prepare
from medtune.data.readers import rows_of
from medtune.data.select import select_rows
from medtune.data.store import EncodedSamples
from medtune.data.templates import PROMPT_TEMPLATE, Template, TokenizerTemplate, resolve_template
from medtune.errors import ConfigError, DataError, MedtuneError, nearest

if TYPE_CHECKING:
    from torch.utils.data import DataLoader
    from transformers import PreTrainedTokenizerBase

    from medtune.data.collate import StepBatch


@dataclass(frozen=True)
class TrainingData:
    """Encoded samples, which of them share a row, and the report."""

    samples: EncodedSamples
    packs: list[list[int]]
    """Of the first epoch."""
    report: DatasetReport
    template: Template | TokenizerTemplate
    seed: int = 0
    folder: Path | None = None
    """Where the encoded rows are kept; None if they are in memory alone."""
    kind: Kind = "answers"
    max_length: int = 0
    """Tokens of the longest sample that is allowed."""

    @cached_property
    def partners(self) -> np.ndarray | None:
        """(n,) of labelled answers: the sample whose answer each prompt is also seen with."""
        if self.kind != "labels":
            return None
        return mismatched_partners(self.samples.rows.questions[self.samples.row], self.seed)

    def __len__(self) -> int:
        return len(self.packs)

    def epoch_packs(self, epoch: int) -> Sequence[Sequence[int]]:
        """Packs of an epoch: as many in each, with other members. A pure function of the seed and the epoch."""
        if epoch == 0 or self.report.capacity is None:
            return self.packs
        groups = _groups(self.samples, self.kind)
        return mix_packs(self.packs, self.samples.lengths, self.report.capacity, [self.seed, epoch], groups)

    def fingerprint(self) -> str:
        """sha256 over token ids, mask and packs: the same data, encoded the same way."""
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in ("input_ids", "trained"):
            for piece in self.samples.pieces(name):
                digest.update(np.ascontiguousarray(piece).data)
        digest.update(self.samples.offsets.data)
        for pack in self.packs:
            digest.update(np.asarray(pack, dtype=np.int64).data)
        if self.kind == "labels":
            digest.update(np.ascontiguousarray(self.samples.rows.good[self.samples.row]).data)
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

    def check(self) -> None:
        """Raise MedtuneError, a fault of ours, if a row went missing without a reason."""
        self.encoded.check()
        if self.num_rows != self.encoded.num_rows + self.dropped.total():
            raise MedtuneError(
                f"rows lost: {self.num_rows} read, {self.encoded.num_rows} encoded, {self.dropped.total()} left out. "
                "This is a fault of medtune."
            )

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
        if told.dropped_tokens:
            lost = ", ".join(f"{count} {reason}" for reason, count in sorted(told.dropped_tokens.items()))
            lines.append(f"tokens left out: {lost}")
        if told.num_special_in_text:
            lines.append(f"rows whose text holds a control token's text, read as text: {told.num_special_in_text}")
        if told.num_unfilled:
            lines.append(
                f"rows that leave a name open, such as <NAME>: {told.num_unfilled}; "
                "fill it with placeholders=dict(name=..., author=...)"
            )
        if self.num_repeated_questions:
            lines.append(f"repeated questions kept on one side of the split: {self.num_repeated_questions}")
        return lines


def _precheck_dataset(
    prompt_template: Any = None,
    val_ratio: float = 0.0,
    dataset_map_fn: Any = None,
    placeholders: Any = None,
    part: str = "train",
    required: bool = False,
    kind: str = "answers",
    train_on: str = "answers",
    overflow: str = "drop",
    **_: Any,
) -> None:
    if dataset_map_fn is not None:
        named_map_fn(dataset_map_fn)
    check_placeholders(placeholders or {})
    check_kind(kind, train_on, overflow)
    if required and part == "val" and not val_ratio:
        raise ConfigError("save_best and early_stopping_patience need validation data: val_ratio or val_data_path.")
    if part == "all" and val_ratio:
        raise ConfigError("val_ratio and val_data_path both name validation data; set one of them.")
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
    kind: Kind = "answers",
    dataset_map_fn: str | Callable[..., Any] | None = None,
    prompt_template: str | Mapping[str, Any] | Template | None = None,
    system: str = "",
    train_on: Literal["answers", "last", "all"] = "answers",
    placeholders: Mapping[str, str] | None = None,
    overflow: Overflow = "drop",
    pack_to_max_length: bool = True,
    drop_empty: bool = False,
    max_dataset_length: Count | None = None,
    val_ratio: Share = 0.0,
    part: Literal["train", "val", "all"] = "train",
    required: bool = False,
    seed: int = 0,
    data_cache: bool = True,
    overwrite_cache: bool = False,
    num_proc: Count | None = None,
) -> TrainingData | None:
    """Read, map, render, encode and pack a data set.

    Args:
        dataset: rows: what `data.readers.read_data` yields, or a list or `datasets.Dataset` of dicts.
        tokenizer: of the base model.
        max_length: tokens of the longest sample, and of a pack; of pairs a pack holds twice as many, so that each fits.
        kind: what is learnt from a row: "answers"; "pairs" of a chosen and a rejected one, each a sample; or "labels",
            answers labelled true or false. A pair is kept or left out as a whole.
        dataset_map_fn: from a row to a conversation: a function, a name (`medtune list-dataset-format`), or None to
            detect it from the first row.
        prompt_template: a name, XTuner's mapping or a Template; None is the tokenizer's own chat template.
        system: system text of conversations that bring none of their own.
        train_on: the answers, the last answer of each conversation, or all of the text.
        placeholders: texts for the names that a data set leaves open: `dict(name="MedTune")` fills `<NAME>`.
        overflow: what happens to a sample of more than `max_length` tokens.
        pack_to_max_length: lay whole samples together into packs of up to `max_length` tokens.
        drop_empty: leave out rows whose answer is empty; else they are a fault.
        max_dataset_length: use only this many rows, drawn by seed.
        val_ratio: share of the rows (0 to 1) set aside for validation, by question, so that repeats never straddle.
        part: which side of that split this is. "val" with `val_ratio` 0 is no data: None. "all" is data to validate
            with, not split. Validation data is not packed.
        required: True if a setting needs this part; the check of a config refuses one that has none.
        seed: of the draw, the split and the packing.
        data_cache: keep encoded rows in a private folder, by content, and map them from there; else in memory.
        overwrite_cache: encode anew what is kept.
        num_proc: processes that encode; None for one a core.

    Raises:
        DataError: a row is broken, empty or, with overflow "error", too long; or nothing is left to train on.
    """
    if part == "val" and not val_ratio:
        return None
    template = resolve_template(prompt_template, tokenizer)
    prepared = prepare(
        partial(rows_of, dataset),
        Recipe(tokenizer, template, dataset_map_fn, system, train_on, placeholders or {}, kind),
        partial(data_identity, dataset),
        in_memory=not data_cache or isinstance(dataset, Iterator),  # an iterator is read once, by one process
        overwrite=overwrite_cache,
        num_proc=num_proc,
    )
    rows = prepared.rows
    chosen, dropped, num_repeated = select_rows(rows, drop_empty, val_ratio, part, max_dataset_length, seed)
    unfit: dict[str, list[str]] = {}
    if kind == "pairs":
        chosen, unpaired, unfit = whole_pairs(rows, chosen, max_length, overflow)
        dropped += unpaired
    samples, told = fit_samples(rows, chosen, max_length, overflow)
    told.dropped_origins.update(unfit)
    if not len(samples):
        reasons = ", ".join(f"{n} {why}" for why, n in (dropped + Counter(told.dropped)).items()) or "none"
        use = {"train": "train on", "val": "validate with; raise val_ratio", "all": "validate with"}[part]
        raise DataError(f"no sample is left to {use}: {len(rows)} rows read, left out: {reasons}.")
    map_name = getattr(prepared.map_fn, "__name__", type(prepared.map_fn).__name__)
    report = DatasetReport(map_name, _template_name(template), len(rows), num_repeated, told, dropped=dropped)
    report.check()
    packs = _packs(samples, max_length, pack_to_max_length and part == "train", seed, report, kind)
    return TrainingData(samples, packs, report, template, seed, prepared.folder, kind, max_length)


def _packs(
    samples: EncodedSamples, max_length: int, pack: bool, seed: int, report: DatasetReport, kind: Kind
) -> list[list[int]]:
    together = 2 if kind == "pairs" else 1
    capacity = max_length * together
    alone = [list(range(i, i + together)) for i in range(0, len(samples), together)]
    packs = plan_packs(samples.lengths, capacity, seed, _groups(samples, kind)) if pack else alone
    report.num_packs = len(packs)
    report.capacity = capacity if pack else None
    return packs


def _groups(samples: EncodedSamples, kind: Kind) -> np.ndarray | None:
    """The group of each sample, the two of a pair in one; None if each is a group of its own."""
    return np.arange(len(samples)) // 2 if kind == "pairs" else None


def _template_name(template: Template | TokenizerTemplate) -> str:
    return template.name if isinstance(template, Template) else "the tokenizer's own"


class _SampleLists:
    """Lists of samples by lists of indices: what one micro-batch of a `StepSampler` item asks for."""

    def __init__(self, samples: EncodedSamples) -> None:
        self.samples = samples

    def __getitem__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self.samples[i] for i in indices]


class _Labelled(_SampleLists):
    """The same of labelled answers: each with its label, and its prompt with another row's answer."""

    def __init__(self, dataset: TrainingData) -> None:
        super().__init__(dataset.samples)
        self.dataset = dataset

    def __getitem__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self._labelled(i) for i in indices]

    def _labelled(self, i: int) -> dict[str, Any]:
        samples, partners = self.samples, self.dataset.partners
        assert partners is not None
        sample, other = samples[i], samples[int(partners[i])]
        good = bool(samples.rows.good[samples.row[i]])
        return {**sample, "good": good, "mismatched": with_answer_of(sample, other, self.dataset.max_length)}


class _Texts(_SampleLists):
    """Lists of packs, each as one sample: its documents end to end, the first token of each untrained."""

    def __getitem__(self, packs: list[list[int]]) -> list[dict[str, Any]]:  # type: ignore[override]
        return [self._text([self.samples[i] for i in pack]) for pack in packs]

    def _text(self, documents: list[dict[str, Any]]) -> dict[str, Any]:
        joined = {name: np.concatenate([d[name] for d in documents]) for name in ("input_ids", "labels")}
        return {**joined, "origin": ", ".join(d["origin"] for d in documents)}


def step_dataloader(
    dataset: TrainingData | None,
    batch_size: Count = 1,
    accumulative_counts: Count = 1,
    num_workers: Annotated[int, Within(0)] = 0,
    shuffle: bool = True,
    seed: int = 0,
    group_by_length: bool = False,
    isolate_documents: bool = True,
) -> DataLoader[StepBatch] | None:
    """DataLoader whose items are optimizer steps (`StepBatch`); its `batch_sampler` is a `StepSampler`.

    Args:
        dataset: from `build_dataset`; None gives None.
        batch_size: packs in a micro-batch on one device. They lie end to end in one row.
        accumulative_counts: micro-batches in an optimizer step.
        num_workers: processes that prepare batches ahead.
        shuffle: a new order, and other packs, each epoch.
        seed: of the order.
        group_by_length: the packs of a step are of similar length; the order of the steps stays random.
        isolate_documents: each sample attends to itself alone; False reads a pack as one text, in which a document sees
            those before it.
    """
    if dataset is None:
        return None
    import torch
    import torch.distributed as dist
    from torch.utils.data import DataLoader

    from medtune.data.collate import collate_step
    from medtune.data.sampler import StepSampler

    together = dist.is_available() and dist.is_initialized()
    sampler = StepSampler(
        dataset.packs,
        batch_size,
        accumulative_counts,
        shuffle,
        seed,
        rank=dist.get_rank() if together else 0,
        world_size=dist.get_world_size() if together else 1,
        epoch_packs=dataset.epoch_packs,
        lengths=dataset.samples.lengths if group_by_length else None,
        whole_packs=not isolate_documents,
    )
    items = _SampleLists(dataset.samples) if isolate_documents else _Texts(dataset.samples)
    if dataset.kind == "labels":
        items = _Labelled(dataset)
    return DataLoader(
        items,  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=collate_step,
        num_workers=num_workers,
        # A DataLoader draws a base seed at each epoch; from torch's default generator that would move dropout's.
        generator=torch.Generator().manual_seed(0),
    )
