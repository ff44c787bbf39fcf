"""Tables: the first row is a header or data, the delimiter is told, and no row is lost."""

from __future__ import annotations

import csv
import doctest
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.data import decoding, texts
from medtune.data.readers import read_data
from medtune.data.records import Row
from medtune.data.tables import has_header, read_csv, sniff_delimiter
from medtune.errors import DataError

MMLU = 'Which is a drug?,rock,"salt, coarse",aspirin,sand,C\nWhich is not?,aspirin,insulin,heparin,rock,D\n'


def test_doctests_hold():
    for module in (decoding, texts):
        results = doctest.testmod(module)
        assert results.attempted > 0
        assert results.failed == 0


def test_a_table_without_a_header_keeps_its_first_row_and_is_named_by_letter(tmp_path):
    path = tmp_path / "anatomy_dev.csv"
    path.write_text(MMLU, encoding="utf-8")
    first, second = read_data(path)
    assert first.fields == dict(zip("ABCDEF", next(csv.reader([MMLU.split("\n")[0]])), strict=True))
    assert first.origin == "anatomy_dev.csv:1"
    assert second.fields["F"] == "D"
    named = read_data(path, columns={"input": "A", "output": "F"})
    assert [row.fields["output"] for row in named] == ["C", "D"]
    with pytest.raises(DataError, match="no column 'question'; it has columns A to F, and its first row does not look"):
        list(read_data(path, columns={"input": "question", "output": "F"}))


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["question,answer", "Fever?,Rest."], True),
        (["药品,适应症", "布洛芬,用于缓解疼痛。"], True),
        ([",Question,A,B,C,D,Answer", "0,q,w,x,y,z,A"], True),
        (["id,question,A,B", "0,q,x,y"], True),
        (["q,a", "1,2"], True),
        (["q1,a1", "q2,a2"], True),  # no sign either way: a table has a header
        (["Do you smoke now?,Age", "yes,31", "no,44"], True),  # a question above answers is a title
        (["2,觉得焦虑", "1,头痛"], False),
        (["发热怎么办？,多喝水。", "头痛怎么办？,休息。"], False),
        (["yes,fever", "no,cough", "yes,pain"], False),  # a cell that comes again in its column
        (["Is it 1? Or 2?,A"], False),
        (["first,second"], True),
    ],
)
def test_a_header_is_told_from_data(rows, expected):
    assert has_header(list(csv.reader(rows))) is expected


def test_the_reader_of_the_table_may_say_that_it_has_a_header_or_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("q1,a1\nq2,a2\n", encoding="utf-8")
    assert [row.fields for row in read_data(path, header=False)] == [{"A": "q1", "B": "a1"}, {"A": "q2", "B": "a2"}]
    path.write_text("1,2\n1,2\n", encoding="utf-8")
    assert [row.fields for row in read_data(path, header=True)] == [{"1": "1", "2": "2"}]


def test_a_blank_title_is_named_after_its_letter_and_does_not_clash_with_a_title(tmp_path):
    path = tmp_path / "cmmlu.csv"
    path.write_text(",Question,A\n0,q,a\n", encoding="utf-8")
    assert [row.fields for row in read_data(path)] == [{"column A": "0", "Question": "q", "A": "a"}]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a;b\n1,5;2,5\n", ";"),
        ('"x;y;z",b\n"p;q;r",2\n', ","),
        ("a|b|c\nx, y|2|3\n", "|"),
        ("ask;answer\na, b, c;rest\nd, e, f;ice\ng, h, i;sleep\nj;k\n", ";"),
        ("a\tb\nq, with comma\tr\n", "\t"),
        ("one column\nof text, some with commas\n", ","),
    ],
)
def test_a_delimiter_is_what_cuts_the_rows_evenly(text, delimiter):
    assert sniff_delimiter(text) == delimiter


def test_a_txt_of_even_tabs_is_a_table_and_other_txt_is_not(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("".join(f"{i % 2}\twords {i}\n" for i in range(6)), encoding="utf-8")
    assert next(iter(read_data(path))) == Row({"A": "0", "B": "words 0"}, "train.txt:1")
    path.write_text("a\tb\nno tab here\nc\td\ne\tf\ng\th\n", encoding="utf-8")
    assert next(iter(read_data(path))).fields == {"text": "a\tb"}


def test_a_row_that_is_too_wide_is_left_out_alone(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("question,answer\nq1,a1\nq2,secret,2\nq3,a3\n", encoding="utf-8")
    faults = []
    assert [row.fields["question"] for row in read_data(path).each(faults.append)] == ["q1", "q3"]
    assert [str(fault) for fault in faults] == [
        "a.csv:3: 3 cells under a header of 2. Quote cells that hold the delimiter."
    ]


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(str.strip)


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6), delimiter=st.sampled_from(",\t"))
def test_rows_come_back_from_a_csv(rows, delimiter):
    buffer = io.StringIO(newline="")
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("question", "answer"), *rows])
    read = read_csv(io.BytesIO(buffer.getvalue().encode()), "a.csv", "utf-8", None, delimiter=delimiter)
    assert [tuple(row.fields.values()) for row in read] == rows


def test_a_header_without_the_delimiter_of_the_text_below_it_rules_that_one_out():
    head = "ask;answer\nFever, cough?;Rest, water\nPain, chills?;Ice, rest\nCough, cold?;Tea, rest;more\n"
    assert sniff_delimiter(head) == ";"


@pytest.mark.parametrize("nothing", ["nan", "NaN"])
def test_a_missing_value_that_became_text_is_nothing(tmp_path, nothing):
    path = tmp_path / "a.csv"
    path.write_text(f"question,answer\nq1,a1\nq2,{nothing}\nq3,banana\n")
    assert [row.fields["answer"] for row in read_data(path)] == ["a1", "", "banana"]
