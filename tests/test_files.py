"""Files that must be right: manifests that notice every damage, links not followed, space asked for first."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple

import pytest

from medtune import files
from medtune.errors import EnvironmentFault, ModelError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sealed" / "inner").mkdir(parents=True)
    (tmp_path / "sealed" / "a.json").write_text('{"a": 1}')
    (tmp_path / "sealed" / "inner" / "model-00001.bin").write_bytes(bytes(range(256)))
    files.write_manifest(tmp_path / "sealed")
    return tmp_path / "sealed"


def test_every_bit_and_every_length_of_a_manifest_counts(folder):
    manifest = folder / "manifest.json"
    content = manifest.read_bytes()
    files.check_files(folder)
    damaged = [content[:end] for end in range(len(content))]
    for place in range(len(content)):
        for bit in range(8):
            damaged.append(content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :])
    for text in damaged:
        manifest.write_bytes(text)
        with pytest.raises(ModelError):
            files.check_files(folder)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "inner/../../outside", "link", "a\0b", "n" * 5000])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(folder, name):
    outside = folder.parent / "outside"
    outside.write_text("x")
    (folder / "link").symlink_to(outside)
    entry = {"bytes": 1, "sha256": files.sha256(outside)}
    (folder / "manifest.json").write_text(json.dumps({"files": {name: entry}}))
    with pytest.raises(ModelError):
        files.check_files(folder)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', '{"a": {"b": 1, "b": 1}}'])
def test_a_name_that_stands_twice_is_a_fault_where_names_must_be_unique(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert files.read_json(tmp_path / "a.json")
    with pytest.raises(ModelError, match="not readable as JSON"):
        files.read_json(tmp_path / "a.json", unique=True)


def test_removing_a_link_leaves_what_it_points_to(folder):
    link = folder.parent / "link"
    link.symlink_to(folder)
    files.remove(link)
    assert not link.is_symlink()
    files.check_files(folder)
    files.remove(folder)
    files.remove(folder)  # nothing there is fine
    assert not folder.exists()


def test_too_little_space_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 0, 2_000_000_000))
    files.require_space(tmp_path, 2_000_000_000)
    with pytest.raises(EnvironmentFault, match=r"2.00 GB free on this disk, 2.50 GB needed; .*Ask the owner"):
        files.require_space(tmp_path, 2_500_000_000, "Ask the owner.")


def test_a_folder_that_cannot_be_synced_is_fine_and_a_file_is_not(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(22, "Invalid argument")

    (tmp_path / "file").touch()
    monkeypatch.setattr(files.os, "fsync", refuse)
    files.fsync(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        files.fsync(tmp_path / "file")
