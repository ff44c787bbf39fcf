"""Encodings are told from the content, or refused with a place; nothing is read in a wrong one."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.data import decoding
from medtune.data.decoding import detect
from medtune.data.readers import read_data
from medtune.errors import DataError

CHINESE = "患者三天前开始发热，体温38.5度，伴有咳嗽和咽痛，无胸闷气促。"


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        (CHINESE, "utf-8", "utf-8-sig"),
        (CHINESE, "utf-8-sig", "utf-8-sig"),
        (CHINESE, "gb18030", "gb18030"),
        (CHINESE, "utf-16", "utf-16"),
        (CHINESE, "utf-32", "utf-32"),
        ("plain", "ascii", "utf-8-sig"),
        ("联通", "utf-8", "utf-8-sig"),
        ("Le patient présente une fièvre élevée et des céphalées", "latin-1", None),
        ("Größe: übermäßig, schön für Ärzte", "cp1252", None),
        ("體溫升高的病人應該儘快就醫，並且服用藥物。", "big5", None),
        ("患者は三日前から発熱しています。", "shift_jis", None),
        ("患者は三日前から発熱しています。", "euc-jp", None),
        ("良い治療の話を理解して、この薬の量を守ってください。料理の流れを話し合う。", "euc-jp", None),
        ("환자는 삼일 전부터 열이 있습니다", "euc-kr", None),
        ("У пациента высокая температура три дня", "cp1251", None),
    ],
)
def test_an_encoding_is_told_only_where_it_is_sure(text, encoding, expected):
    assert detect(io.BytesIO(text.encode(encoding))) == expected


def test_damaged_utf8_that_decodes_as_gb18030_is_not_taken_for_chinese():
    data = "体温升高体温体温".encode() + b"\xb0\xa1"
    assert data.decode("gb18030")
    assert detect(io.BytesIO(data)) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", f"question,answer\n问,{CHINESE}\n"),
        ("a.jsonl", f'{{"question": "问", "answer": "{CHINESE}"}}\n'),
        ("a.json", f'[{{"question": "问", "answer": "{CHINESE}"}}]'),
    ],
)
def test_every_text_form_is_read_in_every_encoding(tmp_path, name, text, encoding):
    (tmp_path / name).write_bytes(text.encode(encoding))
    told = encoding if encoding == "utf-16-le" else None  # without a mark, it must be named
    assert [row.fields for row in read_data(tmp_path / name, encoding=told)] == [{"question": "问", "answer": CHINESE}]


def test_a_file_in_gb18030_with_one_wrong_byte_is_not_half_read(tmp_path):
    data = (CHINESE + "\n").encode("gb18030") * 99
    (tmp_path / "a.txt").write_bytes(data + b"\xff\xff\n")
    with pytest.raises(DataError, match=r"not utf-8 text: the byte at offset 0 does not decode\. Repair that byte"):
        list(read_data(tmp_path / "a.txt"))
    with pytest.raises(DataError, match=f"a.txt:100: not gb18030 text: the byte at offset {len(data)}"):
        list(read_data(tmp_path / "a.txt", encoding="gb18030"))


@settings(deadline=None, max_examples=100)
@given(
    before=st.text(st.characters(codec="utf-8"), max_size=40),
    block=st.integers(1, 9),
    encoding=st.sampled_from(["utf-8", "gb18030"]),
)
def test_the_place_of_a_wrong_byte_is_exact(before, block, encoding):
    data = before.encode(encoding) + b"\xff\xff rest \n"
    size, decoding.BLOCK = decoding.BLOCK, block
    try:
        place = decoding._fault_place(io.BytesIO(data), encoding)
    finally:
        decoding.BLOCK = size
    with pytest.raises(UnicodeDecodeError) as fault:
        data.decode(encoding)
    assert place == (fault.value.start, data[: fault.value.start].count(b"\n") + 1)


def test_lines_of_another_encoding_are_one_fault_that_names_it(tmp_path):
    (tmp_path / "a.jsonl").write_bytes((f'{{"answer": "{CHINESE}"}}\n' * 3).encode("gb18030"))
    with pytest.raises(DataError, match=r"a\.jsonl:1: not utf-8 text: .* It decodes as gb18030"):
        list(read_data(tmp_path / "a.jsonl", encoding="utf-8").each(lambda fault: None))


@pytest.mark.parametrize("encoding", ["klingon", "rot13", "base64"])
def test_an_encoding_that_is_none_of_text_is_refused(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("text\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"unknown encoding '{encoding}'"):
        list(read_data(tmp_path / "a.txt", encoding=encoding))
