"""Several data sets as one: each with a weight and a cap, one after another or interleaved, by a seed.

Sources differ in shape, so each is mapped by its own function, and the mixed rows come out in one shape: OpenAI
messages, or a preference (`medtune.data.records`). Their origins stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medtune.build import checked_by
from medtune.data.cache import data_identity, function_identity
from medtune.data.map_fns import NUM_HEAD_ROWS, MapFn, apply_map_fn, named_map_fn, resolve_map_fn
from medtune.data.readers import Rows, read_data, require_data
from medtune.data.records import Preference, Row, SkippedRow
from medtune.data.registry import find_entry
from medtune.data.shapes import SHAPES
from medtune.errors import ConfigError, DataError, nearest

Order = Literal["concat", "interleave"]
OF_READING = ("columns", "sheet", "split", "encoding", "header", "documents", "subset", "streaming")
OF_A_SOURCE = ("path", "weight", "max_rows", "dataset_map_fn", *OF_READING)


@dataclass(frozen=True)
class Source:
    """One of several data sets."""

    rows: Iterable[Row]
    """Looped over more than once; `Rows` reads anew each time."""
    weight: float = 1.0
    """How often a row is used: 0.5 uses half of the rows, drawn by seed, 2 uses each one twice."""
    max_rows: int | None = None
    """Most rows taken, after the weight."""
    map_fn: str | MapFn | None = None
    """From a row to a conversation; None detects it from the source's first row."""
    name: str = ""


def mix_rows(sources: Sequence[Source], order: Order = "concat", seed: int = 0) -> Rows:
    """Name the rows of several sources as one data set; they are read, and mapped, when they are looped over.

    Nothing is held but a number of one byte or two a row, so sources may be larger than memory. A source that is not
    taken whole, and every source under "interleave", is counted first, by reading it once more.

    Args:
        sources: one or more.
        order: "concat" is one after another; "interleave" spreads each source evenly, at random, over the whole. Both
            hold the same rows, and keep the order within a source.
        seed: of draws and of the interleaving.

    Raises:
        ConfigError: no source, or a weight or cap that is not above 0.
        DataError: while looping; a row that cannot be read or mapped, with its place.
    """
    if not sources:
        raise ConfigError("there is no source to mix.")
    for source in sources:
        _check_numbers(source.name, source.weight, source.max_rows)
    return Rows(lambda: _mixed(sources, order, seed), lambda: _identity(sources, order, seed))


def _identity(sources: Sequence[Source], order: Order, seed: int) -> Any:
    """What tells the mix from all others, as `Rows.identity` does, or None."""
    told = [(data_identity(source.rows), function_identity(source.map_fn)) for source in sources]
    if any(part is None for pair in told for part in pair):
        return None
    return [order, seed, [[*pair, s.weight, s.max_rows, s.name] for pair, s in zip(told, sources, strict=True)]]


def _check_numbers(name: str, weight: Any, max_rows: Any) -> None:
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < float("inf"):
        raise ConfigError(f"{name}: weight={weight!r}: wanted a number above 0.")
    if max_rows is not None and (isinstance(max_rows, bool) or not isinstance(max_rows, int) or max_rows < 1):
        raise ConfigError(f"{name}: max_rows={max_rows!r}: wanted a whole number, 1 or more, or None.")


def _mixed(sources: Sequence[Source], order: Order, seed: int) -> Iterator[Row]:
    streams: list[Iterator[Row]] = []
    lengths: list[int] = []
    for index, source in enumerate(sources):
        if order == "concat" and source.weight == 1 and source.max_rows is None:
            streams.append(_mapped(source))
            lengths.append(0)
            continue
        num_rows = sum(1 for _ in source.rows)
        if not num_rows:
            raise DataError(f"{source.name or 'a source'}: no rows to mix.")
        wanted = max(round(num_rows * source.weight), 1)
        wanted = wanted if source.max_rows is None else min(wanted, source.max_rows)
        streams.append(_taken(source, num_rows, wanted, np.random.default_rng([seed, index])))
        lengths.append(wanted)
    if order == "concat":
        for stream in streams:
            yield from stream
        return
    kind = np.uint8 if len(streams) < 256 else np.uint32
    turns = np.repeat(np.arange(len(streams), dtype=kind), lengths)
    np.random.default_rng(seed).shuffle(turns)
    for turn in turns:
        yield next(streams[turn])


def _taken(source: Source, num_rows: int, wanted: int, rng: np.random.Generator) -> Iterator[Row]:
    """`wanted` rows of a source: all of them as often as they fit, then the rest drawn, each at most once more."""
    while wanted > 0:
        drawn = None
        if wanted < num_rows:
            drawn = np.zeros(num_rows, dtype=bool)
            drawn[rng.choice(num_rows, size=wanted, replace=False)] = True
        yield from _mapped(source, drawn)
        wanted -= num_rows


def _mapped(source: Source, drawn: np.ndarray | None = None) -> Iterator[Row]:
    """Rows of a source in the shape of the mix; only those that are drawn, if any are.

    A row that holds nothing to learn becomes its reason, so that whoever maps the mix counts it (`left_out_map_fn`).
    """
    reader = iter(source.rows)
    head = list(islice(reader, NUM_HEAD_ROWS))
    if not head:
        raise DataError(f"{source.name or 'a source'}: no rows to mix.")
    map_fn = resolve_map_fn(source.map_fn, *head)
    for index, row in enumerate(chain(head, reader)):
        if drawn is not None and not drawn[index]:
            continue
        try:
            record = apply_map_fn(map_fn, row)
        except SkippedRow as skipped:
            yield Row({"left_out": skipped.reason}, row.origin)
            continue
        yield Row(SHAPES["preference" if isinstance(record, Preference) else "messages"].write(record), row.origin)


# ---------------------------------------------------------------- data_path of a config


def _precheck(
    data_path: Any,
    dataset_info: str | Path | None = None,
    mix: str = "concat",
    split: str = "train",
    **_: Any,
) -> None:
    if mix not in ("concat", "interleave"):
        raise ConfigError(f"mix={mix!r} is neither 'concat' nor 'interleave'.")
    if not isinstance(data_path, (list, tuple)):
        _require(data_path, dataset_info)
        return
    if not data_path:
        raise ConfigError("data_path is an empty list; name a source.")
    for item in data_path:
        options = _options(item)
        _check_numbers(str(options["path"]), options.get("weight", 1.0), options.get("max_rows"))
        if options.get("dataset_map_fn") is not None:
            named_map_fn(options["dataset_map_fn"])
        _require(options["path"], dataset_info)


def _require(data_path: Any, dataset_info: str | Path | None) -> None:
    if (entry := find_entry(data_path, dataset_info)) is not None:
        entry.require()
    else:
        require_data(data_path)


def _options(item: Any) -> dict[str, Any]:
    """A source of a list as a dict with a path."""
    if isinstance(item, (str, Path)):
        return {"path": item}
    if not isinstance(item, Mapping):
        raise ConfigError(f"a source of data_path: wanted a path, a name or a dict, got a {type(item).__name__}.")
    for key in item:
        if key not in OF_A_SOURCE:
            raise ConfigError(
                f"a source of data_path has no setting {key!r}.{nearest(str(key), OF_A_SOURCE)} "
                f"Known are {', '.join(OF_A_SOURCE)}."
            )
    if not isinstance(item.get("path"), (str, Path)):
        raise ConfigError("a source of data_path has no 'path'; give a file, a folder or a name.")
    return dict(item)


@checked_by(_precheck)
def read_sources(
    data_path: str | Path | Sequence[Any],
    *,
    dataset_info: str | Path | None = None,
    mix: Order = "concat",
    seed: int = 0,
    sheet: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "train",
    encoding: str | None = None,
    header: bool | None = None,
    documents: str = "line",
    subset: str | None = None,
    streaming: bool = False,
) -> Rows:
    """Name the rows of a data set, of one listed in a dataset_info.json, or of several mixed.

    Args:
        data_path: what `read_data` takes; a name of `dataset_info`; or a list of these, or of dicts with a `path` and
            any of `weight`, `max_rows`, `dataset_map_fn` and the options of reading.
        dataset_info: a dataset_info.json (`medtune.data.registry`), or the folder that holds one. None looks for one in
            the current folder and in ./data, for a name that is not a file or folder.
        mix: "concat" or "interleave", of a list; see `mix_rows`.
        seed: of the mix.
        sheet, columns, split, encoding, header, documents, subset, streaming: as for `read_data`, of every source that
            brings none of its own; a name of `dataset_info` brings its own, and takes `split` where it names none.

    Raises:
        ConfigError: a list that is not such a list.
        DataError: what is missing or broken, with its place.
    """
    _precheck(data_path, dataset_info, mix)
    how = {
        "sheet": sheet,
        "columns": columns,
        "split": split,
        "encoding": encoding,
        "header": header,
        "documents": documents,
        "subset": subset,
        "streaming": streaming,
    }
    if not isinstance(data_path, (list, tuple)):
        return _open(data_path, dataset_info, how, seed)
    return mix_rows([_source(_options(item), dataset_info, how, seed) for item in data_path], mix, seed)


def _open(path: Any, dataset_info: str | Path | None, how: Mapping[str, Any], seed: int) -> Rows:
    entry = find_entry(path, dataset_info)
    if entry is None:
        return read_data(path, **how)
    rows = entry.rows(how["split"])
    return (
        mix_rows([Source(rows, max_rows=entry.num_samples, name=entry.name)], seed=seed) if entry.num_samples else rows
    )


def _source(options: dict[str, Any], dataset_info: str | Path | None, common: dict[str, Any], seed: int) -> Source:
    how = {key: options.get(key, value) for key, value in common.items()}
    return Source(
        _open(options["path"], dataset_info, how, seed),
        options.get("weight", 1.0),
        options.get("max_rows"),
        options.get("dataset_map_fn"),
        str(options["path"]),
    )
