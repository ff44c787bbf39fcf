"""How many tokens records have, in the form they are trained in, and how that is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medtune.data.encode import encode
from medtune.data.templates import resolve_template
from medtune.data.words import conversations_of
from medtune.errors import DataError

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BAR = 40


class Length(NamedTuple):
    """Of one record. A preference counts as its longer conversation, which is what a limit applies to."""

    tokens: int
    trained: int


Counter = Callable[[Sequence[Any]], list[Length | None]]


def token_counter(tokenizer: Any, prompt_template: Any = None) -> Counter:
    """A function from records to their lengths; None for a record that the template cannot render.

    The tokens are those that training sees: the template's own are counted, and nothing is cut.

    Args:
        tokenizer: of transformers.
        prompt_template: a template's name; None is the tokenizer's own chat template.
    """
    template = resolve_template(prompt_template, tokenizer)

    def lengths(conversations: list[Any]) -> dict[int, Length]:
        numbered = [replace(conversation, origin=str(i)) for i, conversation in enumerate(conversations)]
        samples, _ = encode(numbered, template, tokenizer, None, "drop")
        counted = zip(samples.origins, samples.lengths.tolist(), samples.num_trained.tolist(), strict=True)
        return {int(origin): Length(tokens, trained) for origin, tokens, trained in counted}

    def one_by_one(conversations: list[Any]) -> dict[int, Length]:
        found: dict[int, Length] = {}
        for i, conversation in enumerate(conversations):
            try:
                alone = lengths([conversation])
            except DataError:
                continue
            if alone:
                found[i] = alone[0]
        return found

    def count(records: Sequence[Any]) -> list[Length | None]:
        owners: list[int] = []
        conversations: list[Any] = []
        for i, record in enumerate(records):
            for conversation in conversations_of(record):
                owners.append(i)
                conversations.append(conversation)
        try:
            found = lengths(conversations)
        except DataError:  # one of them cannot be rendered; the others are counted all the same
            found = one_by_one(conversations)
        longest: list[Length | None] = [None] * len(records)
        for place, length in found.items():
            longest[owners[place]] = max(length, longest[owners[place]] or length)
        return longest

    return count


def quantiles(values: Sequence[int]) -> dict[str, int]:
    """Smallest, largest and quantiles of whole numbers, by the nearest value; empty of none.

    >>> quantiles([1, 2, 3, 4, 100])["p50"]
    3
    """
    if not len(values):
        return {}
    found = np.quantile(np.asarray(values), QUANTILES, method="nearest")
    names = {0.0: "min", 1.0: "max"}
    return {names.get(q, f"p{100 * q:.0f}"): int(value) for q, value in zip(QUANTILES, found, strict=True)}


def bins(values: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Edges, each twice the one before, that hold all values, and the count between each two.

    >>> [part.tolist() for part in bins([3, 20, 24, 40])]
    [[0, 16, 32, 64], [1, 2, 1]]
    """
    edges = [0, 16]
    while edges[-1] <= max(values, default=0):
        edges.append(2 * edges[-1])
    counts, _ = np.histogram(np.asarray(values), edges)
    return np.asarray(edges), counts


def histogram_lines(values: Sequence[int]) -> list[str]:
    """The histogram as text, one line a bin from the first that holds something."""
    edges, counts = bins(values)
    lines: list[str] = []
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        if count or lines:
            bar = "#" * max(round(BAR * int(count) / max(int(counts.max()), 1)), 1 if count else 0)
            lines.append(f"{low:>8} - {high - 1:<8} {count:>8}  {bar}".rstrip())
    return lines


def plot_lengths(values: Sequence[int], file: Path, title: str) -> None:
    """Draw the histogram of lengths in tokens as a picture, with median and 95th percentile."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(np.maximum(np.asarray(values), 1), bins=np.geomspace(1, max(max(values), 2), 50).tolist())
    told = quantiles(values)
    for name, style in (("p50", "-"), ("p95", "--")):
        axes.axvline(told[name], color="black", linestyle=style, label=f"{name}: {told[name]} tokens")
    axes.set(xscale="log", xlabel="tokens of a row", ylabel="rows", title=title)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120, format="png")
