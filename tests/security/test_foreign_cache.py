"""What lies in the preparation cache may be damaged or somebody else's: it is made anew, nothing else is touched."""

from __future__ import annotations

import os

import numpy as np
import pytest
from helpers import write_questions

from medtune.data import cache, prepare
from medtune.data.pipeline import build_dataset
from medtune.data.readers import read_data
from medtune.data.store import open_rows, sound_rows
from medtune.errors import UsageError


@pytest.fixture
def prepared(tmp_path, monkeypatch, tiny_tokenizer):
    """Prepare forty rows, again and again; the folder they are kept in."""
    monkeypatch.setattr(prepare, "SMALL", 10)
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))
    file = write_questions(tmp_path / "data.jsonl", count=40)

    def run():
        return build_dataset(read_data(file), tiny_tokenizer, max_length=256, num_proc=1).folder

    return run


@pytest.fixture
def precious(tmp_path):
    """A folder of the user's, and what must stay in it."""
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("mine")
    yield tmp_path / "precious"
    assert [file.read_text() for file in (tmp_path / "precious").iterdir()] == ["mine"]


CHANGES = {
    "ids": ("input_ids", np.int32, 2**31 - 1),
    "negative ids": ("input_ids", np.int32, -1),
    "lengths": ("lengths", np.int64, -(1 << 40)),
    "trained": ("num_trained", np.int64, 1 << 40),
    "mask": ("trained", np.uint8, 255),
    "places": ("origins", np.uint8, 0xFF),
    "control characters": ("origins", np.uint8, 0x1B),
}


@pytest.mark.parametrize("name", CHANGES)
def test_arrays_that_encoding_cannot_have_made_are_made_anew(name, prepared):
    file, dtype, value = CHANGES[name]
    folder = prepared()
    before = (folder / file).read_bytes()
    array = np.frombuffer(before, dtype).copy()
    array[1] = value
    (folder / file).write_bytes(array.tobytes())
    assert sound_rows(folder, 1 << 20) is None
    assert prepared() == folder and (folder / file).read_bytes() == before


@pytest.mark.parametrize("place", ["", ".partial", ".partial/shards", ".lock"])
def test_a_link_is_taken_away_and_not_followed(place, prepared, precious):
    folder = prepared()
    link = folder.parent / f"{folder.name}{place}"
    prepare.remove(folder)
    prepare.remove(link)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(precious / "notes.txt" if place == ".lock" else precious)
    assert prepared() == folder and len(open_rows(folder)) == 40


def test_a_cache_that_is_a_link_is_refused(prepared, precious, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "prepared").symlink_to(precious)
    with pytest.raises(UsageError, match="MEDTUNE_CACHE"):
        prepared()


def test_another_users_folder_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path))
    folder = cache.cache_folder()
    assert cache.is_own(folder)
    user = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: user + 1)
    assert not cache.is_own(folder)
    with pytest.raises(UsageError, match="another user's folder"):
        cache.cache_folder()
