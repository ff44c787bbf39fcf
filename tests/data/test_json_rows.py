"""JSON of every form: an array is streamed, places are exact, and what is refused is left out alone."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medtune.data import json_rows, json_values
from medtune.data.json_rows import read_json
from medtune.data.json_values import Scanner
from medtune.data.readers import read_data
from medtune.data.records import Row
from medtune.errors import DataError

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def read_all(path: Path, **options) -> tuple[list[Row], list[str]]:
    faults: list[str] = []
    return list(read_data(path, **options).each(lambda fault: faults.append(str(fault)))), faults


@settings(deadline=None, max_examples=150)
@example(value=0.5, block=3, indent=None, ascii=False)  # " 0." looks like a whole number
@example(value=[1e-7], block=4, indent=None, ascii=False)
@given(value=VALUES, block=st.integers(1, 40), indent=st.sampled_from([None, 0, 2]), ascii=st.booleans())
def test_a_value_read_by_small_blocks_is_the_value(value, block, indent, ascii):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    before, json_values.BLOCK = json_values.BLOCK, block
    try:
        scanner = Scanner(io.StringIO(f" {text}\n"), "a.json")
        assert scanner.value() == value
        scanner.end()
    finally:
        json_values.BLOCK = before


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(st.dictionaries(TEXT, VALUES, min_size=1, max_size=3), min_size=1, max_size=5),
    block=st.integers(30, 99),
)
def test_rows_come_back_from_lines_and_from_an_array_whatever_the_block(rows, block):
    rows = [{"id": "x", **row} for row in rows]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    before, json_values.BLOCK = json_values.BLOCK, block
    try:
        for text in (lines, json.dumps(rows), json.dumps(rows, indent=1)):
            assert [row.fields for row in read_json(io.BytesIO(text.encode()), "a.json", None)] == rows
    finally:
        json_values.BLOCK = before


def test_the_place_of_a_fault_is_exact_far_into_an_array(tmp_path):
    good = ',\n  {"a": "' + "体" * 300 + '"}'
    path = write(tmp_path / "a.json", '[\n  {"a": 1}' + good * 5000 + ',\n  {"a": secret}\n]')
    rows = iter(read_data(path))
    with pytest.raises(DataError, match=r"^a\.json:5003:9: not valid JSON: Expecting value") as fault:
        for number, _ in enumerate(rows, 1):  # noqa: B007
            pass
    assert number == 5001  # all before it came
    assert "secret" not in str(fault.value)


@pytest.mark.slow
def test_an_array_larger_than_the_memory_allowed_is_read(tmp_path):
    path = tmp_path / "a.json"
    with path.open("w") as file:
        file.write("[" + json.dumps({"a": "x" * 1000}))
        for _ in range(150_000):
            file.write("," + json.dumps({"a": "x" * 1000}))
        file.write("]")
    code = (
        "import sys; from medtune.data.readers import read_data; n = sum(1 for _ in read_data(sys.argv[1]));"
        "peak = next(line for line in open('/proc/self/status') if line.startswith('VmHWM')); print(n, peak.split()[1])"
    )  # ru_maxrss would begin with the peak of the process that started this one
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    num_rows, peak_kb = map(int, done.stdout.split())
    assert num_rows == 150_001
    assert peak_kb < 100_000


@pytest.mark.parametrize("form", ["lines", "array", "indented"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"q": 1, "q": 2}', "an object has 'q' more than once"),
        ('{"in": {"q": 1, "q": 2}}', "an object has 'q' more than once"),
        ('{"q": NaN}', "it holds NaN"),
        ('{"q": -Infinity}', "it holds -Infinity"),
        ('{"q": "\\ud800"}', "a lone surrogate"),
        ("17", "wanted an object or text, got a int"),
        ("null", "wanted an object or text, got a NoneType"),
    ],
)
def test_a_refused_row_is_left_out_alone(tmp_path, form, row, message):
    separator, head, tail = {"lines": ("\n", "", "\n"), "array": (",", "[", "]"), "indented": (",\n ", "[\n ", "\n]")}[
        form
    ]
    path = write(tmp_path / "a.json", head + separator.join(['{"q": "a"}', row, '{"q": "b"}']) + tail)
    rows, faults = read_all(path)
    assert [row.fields for row in rows] == [{"q": "a"}, {"q": "b"}]
    assert len(faults) == 1
    assert message in faults[0]
    place = {"lines": "a.json:2", "array": "a.json", "indented": "a.json"}[form]
    assert faults[0].startswith(place)
    with pytest.raises(DataError, match=message):
        list(read_data(path))


def test_a_broken_line_and_a_wrong_byte_leave_the_other_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n{"a": "\xd6\xd0"}\n\n{"a": "\xe4\xbd\x93"}\n')
    rows, faults = read_all(path, encoding="utf-8")
    assert [row.origin for row in rows] == ["a.jsonl:1", "a.jsonl:5"]
    assert faults[0].startswith("a.jsonl:2:7: not valid JSON")
    assert faults[1].startswith("a.jsonl:3: not utf-8 text: the byte at offset 23 does not decode")


def test_pairs_of_surrogates_are_characters(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": "\\ud83d\\ude00"}\n')
    assert read_all(path) == ([Row({"a": "😀"}, "a.jsonl:1")], [])


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [{"q": 1}, {"q": 2}]}',
        '{\n "version": "1.1",\n "data": [\n  {"q": 1}, {"q": 2}\n ],\n "count": 2\n}',
        '{"7": {"q": 1}, "9": {"q": 2}}',
    ],
)
def test_rows_inside_an_object_are_found(tmp_path, text):
    assert [row.fields for row in read_data(write(tmp_path / "a.json", text))] == [{"q": 1}, {"q": 2}]


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "q", "output": "a", "history": [["q0", "a0"]]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"id": "3", "items": "none"},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_one_row_alone_in_a_file_is_one_row(tmp_path, row, indent):
    assert [r.fields for r in read_data(write(tmp_path / "a.json", json.dumps(row, indent=indent)))] == [row]


def test_labels_keyed_by_number_are_rows_and_an_id_twice_is_a_fault(tmp_path):
    path = write(tmp_path / "a.json", '{"123": "yes", "456": "no", "123": "no"}')
    rows, faults = read_all(path)
    assert [row.fields for row in rows] == [{"id": "123", "value": "yes"}, {"id": "456", "value": "no"}]
    assert faults == ["a.json[2]: the id of this row stands a second time in the file."]


def test_an_array_of_turns_is_one_dialogue(tmp_path):
    turns = [{"role": "client", "content": "q"}, {"role": "counselor", "content": "a"}]
    assert list(read_data(write(tmp_path / "a.json", json.dumps(turns)))) == [Row({"messages": turns}, "a.json")]
    said = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert list(read_data(write(tmp_path / "b.json", json.dumps(said)))) == [Row({"conversations": said}, "b.json")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"mm": {"file_name": "a.json"}, "kk": {"hf_hub_url": "a/b"}}', "a registry of 2 data sets, not data"),
        ('{"data": [{"q": 1}], "rows": [{"q": 2}]}', "two lists or objects beside each other"),
        ('[{"q": 1}] [', r"a\.json:1:12: not valid JSON: Extra data"),
        ('[{"q": 1},]', r"a\.json:1:1[01]: not valid JSON"),
        ('[{"q": 1}', r"a\.json:1:10: not valid JSON: Expecting ',' or '\]'"),
        ('[{"q": 1}\n{"q": 2}]', r"a\.json:2:1: not valid JSON: Expecting ',' or '\]'"),
        ('{"a": {"q": 1}, 7: {}}', r"a\.json:1:17: not valid JSON: Expecting property name"),
        ('["a", ' + "[" * 100_000, "not valid JSON"),
    ],
)
def test_broken_or_ambiguous_json_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as fault:
        list(read_data(write(tmp_path / "a.json", text)))
    assert "\n" not in str(fault.value)


def test_a_value_over_the_limit_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "ROW_BYTES", 1000)
    monkeypatch.setattr(json_values, "ROW_BYTES", 1000)
    monkeypatch.setattr(json_values, "BLOCK", 100)
    with pytest.raises(DataError, match="longer than"):
        list(read_data(write(tmp_path / "a.json", '[{"a": "' + "x" * 5000 + '"}]')))
    with pytest.raises(DataError, match=r"a\.jsonl:2: longer than"):
        list(read_data(write(tmp_path / "a.jsonl", '{"a": 1}\n{"a": "' + "x" * 5000 + '"}\n')))


@pytest.mark.parametrize("end", ["\n", "\n\n\n"])
def test_a_first_line_of_over_a_block_that_begins_with_an_object_is_a_line(tmp_path, end):
    rows = [{"meta": {"n": 1}, "answer": "a" * (json_values.BLOCK + 9)}, {"meta": {"n": 2}, "answer": "b"}]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + end)
    assert [(row.origin, row.fields) for row in read_data(path)] == [
        ("a.jsonl:1", rows[0]),
        ("a.jsonl:2", rows[1]),
    ]


def test_an_object_of_objects_on_one_long_line_is_keyed_still(tmp_path):
    value = {str(n): {"question": "q", "answer": "a" * (json_values.BLOCK // 2)} for n in range(3)}
    assert len(list(read_data(write(tmp_path / "a.json", json.dumps(value) + "\n\n")))) == 3
