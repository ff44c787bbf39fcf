"""Workbooks: merged cells, formulas, errors, legacy files; a fault names its cell."""

from __future__ import annotations

import datetime
import subprocess
import sys
import zipfile
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.data import workbooks
from medtune.data.readers import read_data
from medtune.data.records import Row
from medtune.errors import DataError

XLS = Path(__file__).parent / "files" / "drugs.xls"  # a small workbook written by xlwt 1.3


def save(path: Path, rows, merge: tuple[str, ...] = ()) -> Path:
    book = openpyxl.Workbook()
    sheet = book.active
    for cells in rows:
        sheet.append(cells)
    for area in merge:
        sheet.merge_cells(area)
    book.save(path)
    return path


def replaced(path: Path, *pairs: tuple[bytes, bytes]) -> Path:
    """A copy of a workbook with other bytes in its first sheet."""
    copy = path.with_name("replaced.xlsx")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("sheet1.xml"):
                for old, new in pairs:
                    assert old in data
                    data = data.replace(old, new)
            target.writestr(name, data)
    return copy


def read_all(path: Path, **options) -> tuple[list[dict], list[str]]:
    faults: list[str] = []
    rows = read_data(path, **options).each(lambda fault: faults.append(str(fault)))
    return [row.fields for row in rows], faults


def test_the_value_of_merged_cells_belongs_to_each_of_them(tmp_path):
    rows = [["Drug", "Question", "Answer"], ["aspirin", "q1", "a1"], [None, "q2", "same"], [None, "q3", None]]
    path = save(tmp_path / "a.xlsx", rows, ("A2:A4", "C3:C4"))
    fields, faults = read_all(path)
    assert [tuple(row.values()) for row in fields] == [
        ("aspirin", "q1", "a1"),
        ("aspirin", "q2", "same"),
        ("aspirin", "q3", "same"),
    ]
    assert faults == []


def test_cells_merged_along_a_row_and_past_its_last_cell(tmp_path):
    path = save(tmp_path / "a.xlsx", [["Question", "Answer", "Note"], ["both", None, None]], ("A2:C2",))
    assert read_all(path)[0] == [{"Question": "both", "Answer": "both", "Note": "both"}]


def test_a_formula_without_a_value_is_a_fault_of_its_row_and_names_the_cell(tmp_path):
    path = save(tmp_path / "a.xlsx", [["Question", "Dose"], ["q1", "=1+1"], ["q2", 2], ["q3", None]])
    fields, faults = read_all(path)
    assert [row["Question"] for row in fields] == ["q2", "q3"]
    assert faults == [
        "a.xlsx!Sheet!B2: a formula whose value the file does not hold. Open it in a spreadsheet program and save it "
        "again."
    ]
    assert read_all(path, columns={"input": "Question"})[1] == []  # of a column that is not read


def test_a_formula_with_a_value_is_its_value(tmp_path):
    path = save(tmp_path / "a.xlsx", [["Question", "Dose", "Note"], ["q1", "=1+1", '=""']])
    cached = replaced(path, (b"<f>1+1</f><v", b"<f>1+1</f><v>2</v><x"), (b'<c r="C2"', b'<c t="str" r="C2"'))
    assert read_all(cached) == ([{"Question": "q1", "Dose": "2", "Note": ""}], [])


def test_an_error_value_is_a_fault_and_not_text_to_learn(tmp_path):
    path = save(tmp_path / "a.xlsx", [["Question", "Answer"], ["q1", "#N/A"], ["q2", "a2"]])
    fields, faults = read_all(path)
    assert [row["Question"] for row in fields] == ["q2"]
    assert faults[0].startswith("a.xlsx!Sheet!B2: the error #N/A instead of a value")


def test_a_merge_of_a_million_cells_is_refused(tmp_path):
    path = save(tmp_path / "a.xlsx", [["Question", "Answer"], ["q", "a"]], ("A2:B2",))
    with pytest.raises(DataError, match="merged cells, which no table has"):
        list(read_data(replaced(path, (b'ref="A2:B2"', b'ref="A2:Z900000"'))))


def test_a_workbook_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.xlsx", [["Question", "Answer"], *[["q", "same"]] * 2000])
    assert len(read_all(path)[0]) == 2000
    monkeypatch.setattr(workbooks, "UNPACKED_FREE", 1000)
    monkeypatch.setattr(workbooks, "UNPACKED_RATIO", 2)
    with pytest.raises(DataError, match="it unpacks to 0 MB, which no table needs"):
        list(read_data(path))


def test_a_legacy_workbook_reads_as_a_new_one():
    rows = list(read_data(XLS))
    assert rows[0] == Row(
        {"Question": "什么是发热？", "Dose": "5", "Given": "2024-03-01", "Checked": "TRUE", "Answer": "体温升高。"},
        "drugs.xls!Drugs!A3",
    )
    assert [(row.fields["Question"], row.fields["Dose"]) for row in rows[1:3]] == [("merged", "0.5"), ("merged", "1.5")]
    with pytest.raises(DataError, match=r"no sheet 'Drug'; it has 'Drugs'"):
        list(read_data(XLS, sheet="Drug"))


def test_the_content_tells_a_workbook_whatever_its_suffix(tmp_path):
    save(tmp_path / "a.xlsx", [["Question", "Answer"], ["q", "a"]]).rename(tmp_path / "a.csv")
    assert read_all(tmp_path / "a.csv")[0] == [{"Question": "q", "Answer": "a"}]
    (tmp_path / "old.xlsx").write_bytes(XLS.read_bytes())
    assert len(read_all(tmp_path / "old.xlsx")[0]) == 4
    (tmp_path / "page.xls").write_text("<html><table><tr><td>q</td></tr></table></html>", encoding="utf-8")
    with pytest.raises(DataError, match=r"page\.xls: not a readable xls file"):
        list(read_data(tmp_path / "page.xls"))


def test_an_odd_legacy_workbook_is_read_and_xlrd_prints_nothing(tmp_path):
    (tmp_path / "odd.xls").write_bytes(XLS.read_bytes() + b"x")  # its size is worth a warning to xlrd
    code = "import sys; from medtune.data.readers import read_data; assert len(list(read_data(sys.argv[1]))) == 4"
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "odd.xls"], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_damaged_legacy_workbook_is_one_line(tmp_path):
    (tmp_path / "cut.xls").write_bytes(XLS.read_bytes()[:900])
    with pytest.raises(DataError, match=r"cut\.xls: not a readable xls file"):
        list(read_data(tmp_path / "cut.xls"))


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=9)
TEXT = TEXT.filter(
    lambda text: text.strip() and not text.startswith(("=", "#")) and "\uffff" not in text and "\ufffe" not in text
)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.lists(
        st.tuples(TEXT, st.integers(-(10**9), 10**9), st.dates(datetime.date(1950, 1, 1))), min_size=1, max_size=4
    )
)
def test_rows_come_back_from_a_workbook(tmp_path_factory, rows):
    path = save(tmp_path_factory.mktemp("book") / "a.xlsx", [["question", "dose", "date"], *rows])
    assert [tuple(row.values()) for row in read_all(path)[0]] == [
        (text, str(number), date.isoformat()) for text, number, date in rows
    ]
