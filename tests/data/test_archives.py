"""Archives: what they hold reads as it would unpacked; what is hostile or damaged is refused in one line."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.data import archives
from medtune.data.readers import read_data
from medtune.data.records import Row
from medtune.errors import DataError

ROWS = [{"question": "什么是发热？", "answer": "体温升高。"}, {"question": "q2", "answer": "a2"}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
CSV = "question,answer\n什么是发热？,体温升高。\nq2,a2\n".encode()


def packed(kind: str, data: bytes, name: str = "a.jsonl") -> bytes:
    if kind == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, data)
        return buffer.getvalue()
    if kind.startswith("tar"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        return packed(kind.partition(".")[2], buffer.getvalue()) if "." in kind else buffer.getvalue()
    return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](data)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def fields_of(path: Path, **options) -> list[dict]:
    return [row.fields for row in read_data(path, **options)]


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zip", "tar", "tar.gz", "tar.bz2", "tar.xz"])
@pytest.mark.parametrize(("name", "data"), [("a.jsonl", JSONL), ("a.csv", CSV)])
def test_what_is_packed_reads_as_what_is_not(tmp_path, kind, name, data):
    inside = f"{name}.{kind}" if kind in ("gz", "bz2", "xz") else f"all.{kind}"
    path = write(tmp_path / inside, packed(kind, data, name))
    first = next(iter(read_data(path)))
    assert first == Row(ROWS[0], f"{inside}{'' if inside.startswith(name) else '!' + name}:{1 if data is JSONL else 2}")
    assert fields_of(path) == ROWS


def test_the_content_tells_an_archive_whatever_its_suffix(tmp_path):
    assert fields_of(write(tmp_path / "a.jsonl", packed("gz", JSONL))) == ROWS
    assert fields_of(write(tmp_path / "a.json", packed("zip", CSV, "a.csv"))) == ROWS


def test_workbooks_and_parquet_are_read_inside_archives(tmp_path):
    import openpyxl
    import pyarrow as pa
    import pyarrow.parquet

    book, buffer = openpyxl.Workbook(), io.BytesIO()
    for cells in (["question", "answer"], *(list(row.values()) for row in ROWS)):
        book.active.append(cells)
    book.save(buffer)
    table = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), table)
    for kind in ("zip", "tar.gz"):
        assert fields_of(write(tmp_path / f"x.{kind}", packed(kind, buffer.getvalue(), "a.xlsx"))) == ROWS
        assert fields_of(write(tmp_path / f"p.{kind}", packed(kind, table.getvalue(), "a.parquet"))) == ROWS
    assert fields_of(write(tmp_path / "a.parquet.gz", packed("gz", table.getvalue()))) == ROWS


@pytest.mark.parametrize("outer", ["zip", "tar", "tar.gz"])
def test_one_archive_in_another_is_read_and_a_third_is_refused(tmp_path, outer):
    one = packed("gz", JSONL)
    path = write(tmp_path / f"a.{outer}", packed(outer, one, "a.jsonl.gz"))
    assert fields_of(path) == ROWS
    path = write(tmp_path / f"b.{outer}", packed(outer, packed("tar.gz", JSONL), "in.tar.gz"))
    assert next(iter(read_data(path))).origin == f"b.{outer}!in.tar.gz!a.jsonl:1"
    path = write(tmp_path / f"c.{outer}", packed(outer, packed("zip", one, "a.jsonl.gz"), "in.zip"))
    with pytest.raises(DataError, match="an archive in an archive in an archive"):
        list(read_data(path))


def test_members_of_another_split_and_what_is_no_data_stay_out(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train.jsonl", "test.jsonl", "README.txt", "picture.png", "__MACOSX/._train.jsonl", ".hidden.csv"):
            archive.writestr(name, JSONL)
    assert [row.origin for row in read_data(path)] == ["a.zip!train.jsonl:1", "a.zip!train.jsonl:2"]
    assert [row.origin for row in read_data(path, split="test")] == ["a.zip!test.jsonl:1", "a.zip!test.jsonl:2"]
    with pytest.raises(DataError, match="no file of the split 'validation'; it has test, train"):
        list(read_data(path, split="validation"))


def test_a_broken_member_leaves_the_others(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.json", '[{"q": 1}, {"q": oops}]')
        archive.writestr("b.jsonl", JSONL)
    faults = []
    assert [row.origin for row in read_data(path).each(faults.append)] == [
        "a.zip!a.json[0]",
        "a.zip!b.jsonl:1",
        "a.zip!b.jsonl:2",
    ]
    assert [str(fault) for fault in faults] == [
        "a.zip!a.json:1:18: not valid JSON: Expecting value. Fix that place of the file."
    ]
    with pytest.raises(DataError, match="Expecting value"):
        list(read_data(path))


def tar_with(info: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info, io.BytesIO(b"x" * info.size))
    return buffer.getvalue()


def odd_tar(name: str = "a.jsonl", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return tar_with(info)


def odd_zip(name: str = "a.jsonl", mode: int = 0, flag: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, JSONL)
    data = bytearray(buffer.getvalue())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= flag
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (odd_tar("../a.jsonl"), "a path that leads outside"),
        (odd_tar("/etc/a.jsonl"), "a path that leads outside"),
        (odd_tar("x/../../a.jsonl"), "a path that leads outside"),
        (odd_tar(kind=tarfile.SYMTYPE, link="/etc/passwd"), "a link, a device or a sparse file"),
        (odd_tar(kind=tarfile.LNKTYPE, link="b.jsonl"), "a link, a device or a sparse file"),
        (odd_tar(kind=tarfile.CHRTYPE), "a link, a device or a sparse file"),
        (odd_tar(kind=tarfile.FIFOTYPE), "a link, a device or a sparse file"),
        (odd_zip("../a.jsonl"), "a path that leads outside"),
        (odd_zip("..\\a.jsonl"), "a path that leads outside"),
        (odd_zip("/a.jsonl"), "a path that leads outside"),
        (odd_zip("C:/a.jsonl"), "a path that leads outside"),
        (odd_zip(mode=0o120777), "a link or device"),
        (odd_zip(flag=1), "a password"),
    ],
)
def test_what_is_hostile_is_refused_whole(tmp_path, data, what):
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(DataError, match=what) as fault:
        list(read_data(write(folder / "a.bin", data)))
    assert "\n" not in str(fault.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "a.bin"]


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zip", "tar.gz"])
def test_a_bomb_ends_at_the_bound(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(archives, "UNPACKED_FREE", 1 << 20)
    monkeypatch.setattr(archives, "UNPACKED_RATIO", 20)
    data = b'{"a": "' + b"x" * 100 + b'"}\n'
    path = write(tmp_path / f"a.{kind}", packed(kind, data * 40_000))
    seen = 0
    with pytest.raises(DataError, match=r"it unpacks to over 1 MB, as a bomb does"):
        for _ in read_data(path):
            seen += 1
    assert seen < 12_000
    assert len(fields_of(write(tmp_path / f"small.{kind}", packed(kind, data * 5000)))) == 5000  # half a megabyte


def test_lengths_in_a_damaged_table_are_not_believed(tmp_path):
    import pyarrow as pa

    table = pa.table({"text": ["fever", "cough"]})
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    data = buffer.getvalue()
    ends = b"".join(number.to_bytes(4, "little") for number in (0, 5, 10))
    assert data.count(ends) == 1
    wrong = ends[:8] + (1 << 30).to_bytes(4, "little")  # the second text would be a gigabyte of other memory
    with pytest.raises(DataError, match="not a readable arrow file"):
        list(read_data(write(tmp_path / "a.arrow", data.replace(ends, wrong))))


def test_an_archive_of_too_many_members_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MEMBERS", 3)
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(4):
            archive.writestr(f"{number}.jsonl", JSONL)
    with pytest.raises(DataError, match="member 4 has more than 3 members"):
        list(read_data(path))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zip", "tar", "tar.gz"])
@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_an_archive_cut_short_is_one_line(tmp_path, kind, cut):
    data = b"".join(b'{"a": "%d %d"}\n' % (i, i * i) for i in range(3000))
    whole = packed(kind, data)
    end = int(len(whole) * cut) if kind != "tar" else int(len(data) * cut)
    with pytest.raises(DataError, match="a damaged archive, or one cut short") as fault:
        list(read_data(write(tmp_path / f"a.{kind}", whole[:end])))
    assert "\n" not in str(fault.value)


def test_a_large_member_goes_through_a_nameless_file_and_nothing_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "IN_MEMORY", 100)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names: list[list[str]] = []
    path = write(tmp_path / "a.tar.gz", packed("tar.gz", JSONL * 20))
    before = open_files()
    for _ in read_data(path):
        names.append([path.name for path in tmp_path.iterdir()])
    assert len(names) == 40
    assert all(there == ["a.tar.gz"] for there in names)
    assert open_files() == before


def test_reading_that_stops_early_leaves_no_open_file(tmp_path):
    path = write(tmp_path / "a.zip", packed("zip", JSONL * 20))
    before = open_files()
    rows = iter(read_data(path))
    next(rows)
    rows.close()
    assert open_files() == before


@pytest.mark.parametrize("head", [b"Rar!\x1a\x07", b"%PDF-1.7", b"7z\xbc\xaf\x27", b"\x28\xb5\x2f\xfd", b"\x89PNG\r\n"])
def test_a_kind_that_is_not_read_is_named(tmp_path, head):
    with pytest.raises(DataError, match=r"a (RAR|PDF|7-Zip|zstandard|PNG) file, which is not read here"):
        list(read_data(write(tmp_path / "a.json", head + b"x" * 99)))


def test_a_word_document_is_not_read_as_an_archive(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", "<w/>")
    with pytest.raises(DataError, match="an office document that is no workbook"):
        list(read_data(path))


def test_links_out_of_a_folder_are_left_out_with_a_reason(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "a.jsonl", JSONL)
    write(tmp_path / "secret.jsonl", JSONL)
    (folder / "b.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (folder / "c.jsonl").symlink_to(folder / "a.jsonl")
    faults = []
    assert [row.origin for row in read_data(folder).each(faults.append)] == [
        "a.jsonl:1",
        "a.jsonl:2",
        "c.jsonl:1",
        "c.jsonl:2",
    ]
    assert [str(fault) for fault in faults] == [
        "b.jsonl: a link to a file outside of the folder. Name that file, or copy it."
    ]
    with pytest.raises(DataError, match="a link to a file outside"):
        list(read_data(folder))


def test_a_folder_of_the_hubs_cache_is_links_to_its_blobs(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    write(tmp_path / "blobs" / "1f3", JSONL)
    (tmp_path / "snapshots" / "abc" / "a.jsonl").symlink_to("../../blobs/1f3")
    assert fields_of(tmp_path / "snapshots" / "abc") == ROWS


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read_data(tmp_path / "a.jsonl")


TEXT = st.text(st.characters(codec="utf-8"), max_size=9)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.fixed_dictionaries({"question": TEXT, "answer": TEXT}), min_size=1, max_size=4),
    kind=st.sampled_from(["gz", "bz2", "xz", "zip", "tar", "tar.gz"]),
    form=st.sampled_from(["jsonl", "json", "parquet"]),
)
def test_rows_come_back_from_every_archive(tmp_path_factory, rows, kind, form):
    import pyarrow as pa
    import pyarrow.parquet

    buffer = io.BytesIO()
    if form == "parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), buffer)
    elif form == "json":
        buffer.write(json.dumps(rows, indent=1).encode())
    else:
        buffer.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    folder = tmp_path_factory.mktemp("packed")
    path = write(folder / f"a.{form}.{kind}", packed(kind, buffer.getvalue(), f"a.{form}"))
    assert fields_of(path) == rows
