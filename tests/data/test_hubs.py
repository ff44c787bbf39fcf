"""Hubs: how a name is asked for, and the line where there is nothing to be had. No network."""

from __future__ import annotations

import sys
import types

import pytest

from medtune.data.readers import read_data
from medtune.data.records import Row
from medtune.errors import DataError

RECORDS = [{"question": "q", "answer": "a"}]


def test_a_subset_is_asked_for_and_streaming_reads_as_it_comes(monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, *subset, **options):
        asked.append((name, *subset, options))
        return iter(RECORDS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read_data("someone/data", split="test", subset="zh", streaming=True)
    assert list(rows) == [Row(RECORDS[0], "someone/data[test]:0")]
    assert asked == [("someone/data", "zh", {"split": "test", "streaming": True})]


def test_a_data_set_with_a_script_is_refused_with_the_reason(monkeypatch):
    import datasets

    def load_dataset(name, **options):
        raise RuntimeError("Dataset scripts are no longer supported, but found medical.py")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        DataError, match=r"a script of its repository, and scripts are never run. .*hf://datasets/a/b/FILE"
    ):
        list(read_data("a/b"))


def test_without_the_modelscope_library_the_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "modelscope", None)
    monkeypatch.setitem(sys.modules, "modelscope.hub.snapshot_download", None)
    with pytest.raises(
        DataError, match=r"modelscope://org/set: the modelscope library is not installed. Run `pip install"
    ):
        list(read_data("modelscope://org/set"))
    monkeypatch.setenv("MEDTUNE_HUB", "modelscope")
    with pytest.raises(DataError, match=r"modelscope://org/set: the modelscope library"):
        list(read_data("org/set"))


def test_a_modelscope_name_is_downloaded_and_read_as_a_folder(monkeypatch, tmp_path):
    (tmp_path / "train.jsonl").write_text('{"question": "q", "answer": "a"}\n', encoding="utf-8")
    (tmp_path / "loader.py").write_text("raise SystemExit", encoding="utf-8")
    asked = []
    module = types.ModuleType("modelscope.hub.snapshot_download")
    module.dataset_snapshot_download = lambda name: asked.append(name) or str(tmp_path)
    for name in ("modelscope", "modelscope.hub"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "modelscope.hub.snapshot_download", module)
    assert list(read_data("modelscope://org/set")) == [Row(RECORDS[0], "train.jsonl:1")]
    assert asked == ["org/set"]


def test_a_malformed_modelscope_name_is_refused():
    with pytest.raises(DataError, match="wanted modelscope://ORGANISATION/NAME"):
        read_data("modelscope://set")
