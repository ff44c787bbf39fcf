"""Hostile folders of prepared data: what another user, or a damaged disk, may have put where medtune keeps its own.

`honest` is prepared once, so that its key is the one that the commands look for.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hostile import SECRET, World, artefact, small_run
from hostile_files import ESCAPES, Calls, python, shell

STRANGER = 12345  # a user's number
FAR = 1 << 40


def honest(world: World) -> Path:
    """A cache folder with the prepared rows of `world.many`."""
    from medtune.cli import main

    folder = world.root / "honest" / "cache"
    if not folder.exists():
        before = os.environ.get("MEDTUNE_CACHE")
        os.environ["MEDTUNE_CACHE"] = str(folder)
        try:
            assert main(["data", "prepare", *small_run(world)[1:], f"data_path={world.many}"]) == 0
        finally:
            os.environ.pop("MEDTUNE_CACHE")
            os.environ.update({"MEDTUNE_CACHE": before} if before else {})
    return folder


def cache(name: str, spoil: Callable[[World, Path], None], fast: bool = False) -> None:
    """A cache whose folder of the right key `spoil(world, folder)` has spoilt."""

    def make(world: World, folder: Path) -> Path:
        target = Path(shutil.copytree(honest(world), folder / "cache"))
        (kept,) = (path for path in (target / "prepared").iterdir() if path.is_dir())
        spoil(world, kept)
        return target

    make.__name__ = name
    artefact("cache", fast)(make)


# ---------------------------------------------------------------- content


def content(name: str, text: Callable[[World], bytes | str]) -> Callable[[World, Path], None]:
    """One file of the folder holds this."""

    def spoil(world: World, kept: Path) -> None:
        found = text(world)
        (kept / name).write_bytes(found if isinstance(found, bytes) else found.encode())

    return spoil


def numbers(name: str, dtype: type, *changes: tuple[int, int]) -> Callable[[World, Path], None]:
    """These (place, number) in one of the arrays, whose size stays."""

    def spoil(_: World, kept: Path) -> None:
        array = np.fromfile(kept / name, dtype)
        for place, number in changes:
            array[place] = number
        array.tofile(kept / name)

    return spoil


def both(*parts: Callable[[World, Path], None]) -> Callable[[World, Path], None]:
    """One after the other."""

    def spoil(world: World, kept: Path) -> None:
        for part in parts:
            part(world, kept)

    return spoil


def pickled(world: World) -> bytes:
    return pickle.dumps(Calls(os.system, shell(world)))


I32, I64, U8 = np.int32, np.int64, np.uint8
cache("cache_manifest_pickle", content("manifest.json", pickled), fast=True)
cache("cache_manifest_deep", content("manifest.json", lambda w: '{"rows":' * 100_000))
cache("cache_manifest_list", content("manifest.json", lambda w: "[1]"))
cache("cache_manifest_text", content("manifest.json", lambda w: json.dumps({"rows": python(w)})))
cache("cache_manifest_giant", content("manifest.json", lambda w: '{"rows": ' + "9" * 5000 + "}"))
cache("cache_ids_pickle", content("input_ids", pickled), fast=True)
cache("cache_ids_empty", content("input_ids", lambda w: b""))
cache("cache_ids_too_large", numbers("input_ids", I32, (3, 2**31 - 1), (70, 2**31 - 1)), fast=True)
cache("cache_ids_negative", numbers("input_ids", I32, (3, -(2**31)), (70, -1)), fast=True)
cache("cache_mask_of_ones", numbers("trained", U8, *((i, 255) for i in range(500))))
cache("cache_lengths_negative", numbers("lengths", I64, (0, -FAR), (1, FAR)))
cache("cache_lengths_overflow", numbers("lengths", I64, (0, 2**62), (1, 2**62), (2, 2**62), (3, 2**62)))
cache("cache_trained_more_than_there_are", numbers("num_trained", I64, (0, FAR), (1, -FAR)))
cache("cache_parts_negative", numbers("num_parts", I64, (0, -FAR), (1, FAR)))
cache("cache_parts_of_others", numbers("num_parts", I64, (0, 0), (1, 2)))
cache("cache_origin_lengths", numbers("origin_lengths", I64, (0, -FAR), (1, FAR)))
cache("cache_origins_escapes", numbers("origins", U8, *enumerate(ESCAPES.encode())), fast=True)
cache("cache_origins_no_text", numbers("origins", U8, *((i, 0xFF) for i in range(64))))
cache("cache_unfilled_of_ones", numbers("unfilled", U8, *((i, 255) for i in range(500))))
ESCAPE_LENGTH = numbers("reason_lengths", I64, (0, len(ESCAPES.encode())))
cache("cache_reasons", both(content("reasons", lambda w: ESCAPES), ESCAPE_LENGTH))
cache("cache_reasons_no_text", both(content("reasons", lambda w: b"\xff\xfe"), numbers("reason_lengths", I64, (0, 2))))
cache("cache_array_missing", lambda w, k: (k / "lengths").unlink())
cache("cache_program_beside", content("numpy.py", python))


@artefact("cache")
def cache_array_is_a_folder(world: World, folder: Path) -> Path:
    target = Path(shutil.copytree(honest(world), folder / "cache"))
    (kept,) = (path for path in (target / "prepared").iterdir() if path.is_dir())
    (kept / "input_ids").unlink()
    (kept / "input_ids").mkdir()
    return target


# ---------------------------------------------------------------- links, and unfinished work


def link(place: Path, to: Path) -> None:
    """A link in the place of whatever is there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.unlink(missing_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(to)


def precious(world: World) -> Path:
    """A folder of the user's, with a file that must stay as it is."""
    return (world.root / SECRET).parent


def unfinished(kept: Path) -> Path:
    """Turn what is kept into an unfinished preparation: no result, and an empty folder for the shards."""
    shutil.rmtree(kept)
    partial = kept.with_suffix(".partial")
    (partial / "shards").mkdir(parents=True)
    return partial


def _forged(world: World, kept: Path) -> None:
    """A preparation that only needs its name."""
    partial = kept.with_suffix(".partial")
    kept.rename(partial)
    numbers("input_ids", I32, (3, 2**31 - 1))(world, partial)


def _shard(world: World, kept: Path) -> None:
    """A shard that is said to be done, and one of another name."""
    shards = unfinished(kept) / "shards"
    source = next(path for path in (honest(world) / "prepared").iterdir() if path.is_dir())
    for name in ("00000000", "evil"):
        shutil.copytree(source, shards / name)
        numbers("input_ids", I32, (3, -5))(world, shards / name)
        numbers("origins", U8, (0, 0xFF))(world, shards / name)


def lock(kept: Path) -> Path:
    return kept.with_suffix(".lock")


def _unfinished_under_a_linked_lock(world: World, kept: Path) -> None:
    unfinished(kept)
    link(lock(kept), world.root / SECRET)


def _unfinished_under_a_folder(world: World, kept: Path) -> None:
    unfinished(kept)
    lock(kept).unlink()
    lock(kept).mkdir()


def _a_file(world: World, place: Path) -> None:
    shutil.rmtree(place)
    place.write_bytes(pickled(world))


cache("cache_link_to_another", lambda w, k: link(k, precious(w)), fast=True)
cache("cache_file_in_place", _a_file)
cache("cache_lock_link", lambda w, k: link(lock(k), w.canary / "written"))
cache("cache_lock_link_unfinished", _unfinished_under_a_linked_lock, fast=True)
cache("cache_lock_is_a_folder", _unfinished_under_a_folder)
cache("cache_partial_link", lambda w, k: link(unfinished(k), precious(w)), fast=True)
cache("cache_partial_link_to_nothing", lambda w, k: link(unfinished(k), w.canary / "written"))
cache("cache_partial_is_a_file", lambda w, k: _a_file(w, unfinished(k)))
cache("cache_shards_link", lambda w, k: link(unfinished(k) / "shards", precious(w)), fast=True)
cache("cache_shard_link", lambda w, k: link(unfinished(k) / "shards" / "00000000", precious(w)))
cache("cache_part_link", lambda w, k: link(unfinished(k) / "shards" / "00000000.part", precious(w)))
cache("cache_array_link", lambda w, k: link(unfinished(k) / "input_ids", w.root / SECRET), fast=True)
cache("cache_manifest_link", lambda w, k: link(unfinished(k) / "manifest.json.part", w.root / SECRET))
cache("cache_partial_forged", _forged, fast=True)
cache("cache_shards_forged", _shard)
cache("cache_stop_file", lambda w, k: (unfinished(k) / "shards" / "stop").touch())


@artefact("cache", fast=True)
def cache_of_a_stranger(world: World, folder: Path) -> Path:
    """Another user's folder, where this process may be told apart from one."""
    target = Path(shutil.copytree(honest(world), folder / "cache"))
    if os.getuid() == 0:
        for path in [target, *target.rglob("*")]:
            os.chown(path, STRANGER, STRANGER)
    return target


@artefact("cache")
def cache_root_is_a_file(world: World, folder: Path) -> Path:
    (folder / "cache").write_text("x")
    return folder / "cache"


@artefact("cache", fast=True)
def cache_root_links_elsewhere(world: World, folder: Path) -> Path:
    (folder / "cache").mkdir()
    (folder / "cache" / "prepared").symlink_to(precious(world))
    return folder / "cache"
