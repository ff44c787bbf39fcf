"""Readers: every accepted shape gives the same rows, every fault one line that says where."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import openpyxl
import pytest

from medtune.data import tables
from medtune.data.readers import EMBEDDED, conversation_columns, read_data, rows_of
from medtune.data.records import Row
from medtune.errors import DataError, UsageError

RECORDS = [{"question": "什么是发热？", "answer": "体温升高。"}, {"question": "q2\u2028still q2", "answer": "a2"}]


@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Drugs"
    for cells in ([], ["Question", "Notes", "Answer"], ["q1", 5.0, "a1"], [None, None, None], ["q2", 0.5, None]):
        sheet.append(cells)
    path = tmp_path / "drugs.xlsx"
    book.save(path)
    return path


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def lines_of(records) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def test_doctests_of_tables_hold():
    results = doctest.testmod(tables)
    assert results.failed == 0
    assert results.attempted >= 2


def test_xlsx_rows_carry_sheet_column_and_row_of_the_file(workbook):
    assert list(read_data(workbook)) == [
        Row({"Question": "q1", "Notes": "5", "Answer": "a1"}, "drugs.xlsx!Drugs!A3"),
        Row({"Question": "q2", "Notes": "0.5", "Answer": ""}, "drugs.xlsx!Drugs!A5"),
    ]


@pytest.mark.parametrize("columns", [{"input": "B", "output": "C"}, {"input": "Notes", "output": "Answer"}])
def test_columns_are_named_by_letter_or_header(workbook, columns):
    rows = list(read_data(workbook, columns=columns))
    assert rows[0] == Row({"input": "5", "output": "a1"}, "drugs.xlsx!Drugs!B3")


def test_a_header_wins_over_a_letter(tmp_path):
    path = write(tmp_path / "exam.csv", "id,question,A,B\n1,which?,first,second\n")
    assert next(iter(read_data(path, columns={"input": "question", "output": "A"}))).fields["output"] == "first"


def test_a_wrong_dimension_record_of_an_xlsx_does_not_hide_cells(workbook, tmp_path):
    import zipfile

    broken = tmp_path / "dimension.xlsx"
    with zipfile.ZipFile(workbook) as source, zipfile.ZipFile(broken, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("sheet1.xml"):
                assert b'<dimension ref="A2:C5"' in data
                data = data.replace(b'<dimension ref="A2:C5"', b'<dimension ref="A1:A1"')
            target.writestr(name, data)
    assert [row.fields for row in read_data(broken)] == [row.fields for row in read_data(workbook)]


def test_several_sheets_must_be_named(workbook):
    book = openpyxl.load_workbook(workbook)
    book.create_sheet("Doses").append(["Drug", "Dose"])
    book.save(workbook)
    with pytest.raises(DataError, match=r"2 sheets, 'Drugs', 'Doses'"):
        list(read_data(workbook))
    with pytest.raises(DataError, match=r"no sheet 'Drug'; it has .* Did you mean 'Drugs'"):
        list(read_data(workbook, sheet="Drug"))
    assert list(read_data(workbook, sheet="Doses")) == []


def test_a_missing_column_is_named_with_those_there_are(workbook):
    with pytest.raises(DataError, match=r"no column 'Anser'; it has 'Question' \(A\).*Did you mean 'Answer'"):
        list(read_data(workbook, columns={"input": "A", "output": "Anser"}))


def test_a_file_that_is_no_xlsx_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a readable xlsx file"):
        list(read_data(write(tmp_path / "a.xlsx", "PK nothing")))


@pytest.mark.parametrize(
    ("name", "text", "encoding"),
    [
        ("a.csv", "question,answer\n什么是发热？,体温升高。\n", "utf-8"),
        ("bom.csv", "question,answer\r\n什么是发热？,体温升高。\r\n", "utf-8-sig"),
        ("semicolon.csv", "question;answer\n什么是发热？;体温升高。\n", "utf-8"),
        ("a.tsv", "question\tanswer\n什么是发热？\t体温升高。\n", "utf-8"),
        ("a.jsonl", lines_of(RECORDS[:1]), "utf-8-sig"),
        ("array.jsonL", json.dumps(RECORDS[:1], indent=2), "utf-8"),
        ("lines.json", lines_of(RECORDS[:1]), "utf-8"),
        ("array.json", json.dumps(RECORDS[:1]), "utf-8"),
        ("keyed.json", json.dumps({"12377809": RECORDS[0]}, indent=1), "utf-8"),
        ("keyed_on_one_line.json", json.dumps({"12377809": RECORDS[0]}), "utf-8"),
        ("lines.txt", "\n" + lines_of(RECORDS[:1]), "utf-8"),
    ],
)
def test_every_shape_gives_the_same_row(tmp_path, name, text, encoding):
    assert [row.fields for row in read_data(write(tmp_path / name, text, encoding))] == RECORDS[:1]


def test_json_lines_keep_unicode_line_separators_and_count_blank_lines(tmp_path):
    path = write(tmp_path / "a.jsonl", lines_of(RECORDS).replace("\n", "\n\n"))
    assert list(read_data(path)) == [Row(RECORDS[0], "a.jsonl:1"), Row(RECORDS[1], "a.jsonl:3")]


def test_a_json_array_counts_from_zero(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps(RECORDS))
    assert [row.origin for row in read_data(path)] == ["a.jsonl[0]", "a.jsonl[1]"]


def test_columns_rename_the_keys_of_json_rows(tmp_path):
    path = write(tmp_path / "a.txt", '{"问": "q", "答": "a", "科": "内科"}\n{"问": "q2"}\n')
    rows = iter(read_data(path, columns={"input": "问", "output": "答"}))
    assert next(rows) == Row({"input": "q", "output": "a"}, "a.txt:1")
    with pytest.raises(DataError, match=r"a\.txt:2: no key '答'; the row has '问'"):
        next(rows)


def test_plain_text_is_one_document_a_line_even_if_it_begins_with_a_bracket(tmp_path):
    path = write(tmp_path / "a.txt", "[1] First  \n\n  second\r\n")
    assert list(read_data(path)) == [Row({"text": "[1] First  "}, "a.txt:1"), Row({"text": "  second"}, "a.txt:3")]


def test_csv_rows_name_the_line_they_begin_on(tmp_path):
    path = write(tmp_path / "a.csv", 'question,answer\n"two\nlines","with ""quotes"", comma"\nq2,a2\n')
    first, second = read_data(path)
    assert first == Row({"question": "two\nlines", "answer": 'with "quotes", comma'}, "a.csv:2")
    assert second.origin == "a.csv:4"


def test_csv_fields_may_be_longer_than_the_csv_module_allows_by_default(tmp_path):
    path = write(tmp_path / "a.csv", "question,answer\nq," + "a" * 200_000 + "\n")
    assert len(next(iter(read_data(path))).fields["answer"]) == 200_000


def test_parquet_and_arrow_files_are_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    table = pa.Table.from_pylist(RECORDS)
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "stream.arrow", "file.arrow"):
        assert list(read_data(tmp_path / name)) == [Row(r, f"{name}[{i}]") for i, r in enumerate(RECORDS)]
    with pytest.raises(DataError, match=r"cut\.parquet: not a readable parquet file"):
        list(read_data(write(tmp_path / "cut.parquet", "PAR1")))


def test_a_folder_is_read_in_order_and_leaves_out_what_is_no_data(tmp_path):
    write(tmp_path / "b.jsonl", lines_of(RECORDS[1:]))
    write(tmp_path / "a.json", json.dumps(RECORDS[:1]))
    write(tmp_path / "README.txt", "not data")
    write(tmp_path / "notes.md", "not data")
    write(tmp_path / ".hidden.jsonl", "not data")
    assert [row.origin for row in read_data(tmp_path)] == ["a.json[0]", "b.jsonl:1"]


def test_a_folder_never_mixes_its_test_file_into_training(tmp_path):
    write(tmp_path / "guanaco_train.jsonl", lines_of(RECORDS[:1]))
    write(tmp_path / "guanaco_eval.jsonl", lines_of(RECORDS[1:]))
    assert [row.origin for row in read_data(tmp_path)] == ["guanaco_train.jsonl:1"]
    assert [row.origin for row in read_data(tmp_path, split="test")] == ["guanaco_eval.jsonl:1"]
    with pytest.raises(DataError, match="no file of the split 'validation'; it has test, train"):
        list(read_data(tmp_path, split="validation"))


def test_rows_of_takes_lists_datasets_and_rows():
    from datasets import Dataset, DatasetDict

    dataset = Dataset.from_list(RECORDS)
    assert [row.fields for row in rows_of(dataset)] == RECORDS
    assert next(rows_of(DatasetDict({"train": dataset}), columns={"input": "question"})).fields == {
        "input": RECORDS[0]["question"]
    }
    assert list(rows_of([*RECORDS[:1], "text"], name="mine")) == [
        Row(RECORDS[0], "mine[train]:0"),
        Row({"text": "text"}, "mine[train]:1"),
    ]
    assert list(rows_of(iter([Row(RECORDS[0], "a.jsonl:7")]))) == [Row(RECORDS[0], "a.jsonl:7")]
    with pytest.raises(DataError, match="no split 'test'; the data set has 'train'"):
        rows_of(DatasetDict({"train": dataset}), "test")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": secret}\n', r"a\.jsonl:2:7: not valid JSON: Expecting value"),
        ("cut.jsonl", '{"a": "x"}\n{"a": "secret', r"cut\.jsonl:2:7: not valid JSON: Unterminated string"),
        ("a.json", '[\n {"a": 1},\n {"a": secret}\n]', r"a\.json:3:8: not valid JSON"),
        ("nan.jsonl", '{"a": NaN}\n', r"nan\.jsonl:1: not valid JSON: it holds NaN"),
        ("numbers.jsonl", "1\n2\n", r"numbers\.jsonl:1: wanted an object or text, got a int"),
        ("empty.json", " \n", r"empty\.json: the file is empty"),
        ("empty.csv", "\n\n", r"empty\.csv: the table is empty"),
        ("lfs.json", "version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        ("twice.csv", "q,q\n1,2\n", "the header has 'q' more than once"),
        ("wide.csv", "q,a\n1,2,secret\n", r"wide\.csv:2: 3 cells under a header of 2"),
        ("quote.csv", 'q,a\n1,"secret\n2,3\n', r"quote\.csv:2: broken csv"),
        ("a.doc", "x", r"cannot read a file that ends in '\.doc'. Known are"),
    ],
)
def test_a_broken_file_is_one_line_that_names_the_place_and_quotes_nothing(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message) as fault:
        list(read_data(write(tmp_path / name, text)))
    assert "\n" not in str(fault.value)
    assert "secret" not in str(fault.value)


def test_deeply_nested_json_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="not valid JSON"):
        list(read_data(write(tmp_path / "deep.jsonl", "[" * 200_000 + "\n")))


def test_another_encoding_is_named_with_the_offset_and_read_when_told(tmp_path):
    text = "问题,答案\n<篇名>,体温升高。\n"
    path = write(tmp_path / "gb.csv", text, "gb18030")
    with pytest.raises(DataError, match=r"gb\.csv:1: not utf-8 text: the byte at offset 0 .* data_encoding='gb18030'"):
        list(read_data(path, encoding="utf-8"))
    assert next(iter(read_data(path, encoding="gb18030"))).fields == {"问题": "<篇名>", "答案": "体温升高。"}
    with pytest.raises(DataError, match="unknown encoding 'klingon'"):
        list(read_data(path, encoding="klingon"))
    with pytest.raises(DataError, match="data_encoding='utf-16'"):
        list(read_data(write(tmp_path / "wide.txt", "体温", "utf-16"), encoding="utf-8"))


def test_damaged_utf8_is_not_taken_for_another_encoding(tmp_path):
    path = tmp_path / "damaged.txt"
    path.write_bytes("体温升高\n体温".encode() + b"\xa1\xa1\n")
    with pytest.raises(DataError, match=r"damaged\.txt:2: not utf-8 text: the byte at offset 19 .*Repair that byte"):
        list(read_data(path))


def test_a_missing_file_is_named_with_its_neighbours(workbook):
    with pytest.raises(DataError, match=r"drug\.xlsx: no such file or folder. Did you mean 'drugs\.xlsx'"):
        read_data(workbook.with_name("drug.xlsx"))
    with pytest.raises(DataError, match=r"The folder .* does not exist"):
        read_data(workbook.parent / "nowhere" / "drug.xlsx")


def test_a_name_that_is_no_file_and_no_hub_id_says_both(monkeypatch):
    import datasets

    def unreachable(*args, **kwargs):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DataError, match=r"^someone/data: no such file .* no Hugging Face data set .*no network at all"):
        list(read_data("someone/data"))


def test_a_hub_id_is_loaded_by_its_split(monkeypatch):
    import datasets

    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return datasets.Dataset.from_list(RECORDS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert next(iter(read_data("someone/data", split="test"))) == Row(RECORDS[0], "someone/data[test]:0")
    assert asked == [("someone/data", "test")]


def test_rows_can_be_read_more_than_once(tmp_path):
    rows = read_data(write(tmp_path / "a.txt", "one\ntwo\n"))
    assert list(rows) == list(rows) != []


def test_only_xlsx_files_have_sheets(tmp_path):
    with pytest.raises(DataError, match="only xlsx and xls files have sheets"):
        list(read_data(write(tmp_path / "a.csv", "q,a\n1,2\n"), sheet="Drugs"))


def test_the_embedded_name_stands_for_a_file_of_the_package():
    assert EMBEDDED["medication-qa"].parent.name == "assets"


def test_one_column_option_alone_is_a_usage_error():
    assert conversation_columns(None, None) is None
    assert conversation_columns("A", "D") == {"input": "A", "output": "D"}
    with pytest.raises(UsageError, match="--output-column is missing"):
        conversation_columns("A", None)


def test_the_tutorial_workbook_reads_as_its_published_jsonl(shared):
    folder = shared / "data" / "internlm-tutorial-medqa2019"
    rows = list(read_data(folder / "MedQA2019.xlsx", sheet="DrugQA", columns={"input": "A", "output": "D"}))
    published = [row.fields["conversation"][0] for row in read_data(folder / "MedQA2019-structured.jsonl")]
    assert [(r.fields["input"], r.fields["output"]) for r in rows] == [(t["input"], t["output"]) for t in published]
    assert len(rows) == 690
    assert rows[55].origin == "MedQA2019.xlsx!DrugQA!A57"


@pytest.mark.parametrize(
    ("name", "encoding", "num_rows"),
    [
        ("toyhom/样例_内科5000-6000.csv", "gb18030", 7644),
        ("huatuo-llama/llama_data.json", None, 8658),
        ("caregpt/drug.json", None, 2441),
        ("pubmedqa/ori_pqal.json", None, 1000),
        ("medicalgpt/medical_corpus.txt", None, 87),
        ("medicalgpt/fever.txt", None, 985),
        ("cmb/CMB-test-qa.json", None, 74),
    ],
)
def test_published_files_give_every_row(shared, name, encoding, num_rows):
    assert sum(1 for _ in read_data(shared / "data" / name, encoding=encoding)) == num_rows
