"""Identifiers replaced in rows and files: consistently, in the form of the file, all of it or nothing."""

from __future__ import annotations

import csv
import json
import re
import stat
from pathlib import Path

import openpyxl
import pytest
from patient_records import records

from medtune.cli import main
from medtune.privacy import presidio
from medtune.privacy.checks import is_luhn, is_resident_id, nhs_check, resident_check
from medtune.privacy.dates import read_date
from medtune.privacy.identifiers import find
from medtune.privacy.redaction import Redactor, scan
from medtune.privacy.surrogates import Surrogates

ROW = {
    "姓名": "张伟",
    "手机": 13812345678,
    "电话": 13912345678.0,
    "score": 0.5,
    "记录": "患者张伟，2023年5月6日入院，5月16日出院。张伟说，张医生开了阿莫西林0.5g。",
    "notes": [{"text": "Mr. John Smith, MRN: 4492-A; Smith called.", "ok": None, "flag": True}],
}
SECRETS = ("张伟", "张医生", "13812345678", "13912345678", "John", "Smith", "4492-A", "2023年5月6日", "5月16日")


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(presidio, "installed_model", lambda: None)


def write(name: str, *rows: dict) -> None:
    Path(name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------- surrogates


def test_the_same_value_gets_the_same_surrogate_and_another_key_another_one():
    one, again, other = Surrogates(b"k" * 16), Surrogates(b"k" * 16), Surrogates()
    for kind, value in [
        ("name", "张伟"),
        ("phone", "138 1234 5678"),
        ("record_number", "ZY-123456"),
        ("email", "a@b.cn"),
    ]:
        assert one.surrogate(kind, value) == one.surrogate(kind, value) == again.surrogate(kind, value) != value
    assert one.surrogate("record_number", "ZY-123456") != other.surrogate("record_number", "ZY-123456")
    assert re.sub(r"\D", "", one.surrogate("phone", "138 1234 5678")) == one.surrogate("phone", "13812345678")


def test_two_people_never_become_one():
    surrogates = Surrogates(b"k" * 16)
    people = {f"张{a}{b}" for a in "伟芳娜敏静丽强磊军洋勇艳" for b in "杰涛明超秀英霞平刚桂文辉玲建国华"}
    assert len({surrogates.surrogate("name", name) for name in people}) == len(people)
    words = [f"{a}{b}" for a in "Abc Def Ghi Jkl Mno Pqr Stu".split() for b in "aeiou mnorst"]  # noqa: SIM905
    assert len({surrogates.surrogate("name", word) for word in words}) == len(set(words))


def test_a_name_keeps_its_form_and_its_parts_agree():
    surrogates = Surrogates(b"k" * 16)
    full, short = surrogates.surrogate("name", "John A. Smith"), surrogates.surrogate("name", "Smith")
    assert re.fullmatch(r"[A-Z][a-z]+ [A-Z]\. [A-Z][a-z]+", full)
    assert full.split()[-1] == short
    assert surrogates.surrogate("name", "SMITH, JOHN") == f"{short.upper()}, {full.split()[0].upper()}"
    assert surrogates.surrogate("name", "张伟")[0] == surrogates.surrogate("name", "张")
    assert len(surrogates.surrogate("name", "欧阳明月")) == 3


def test_surrogate_ids_have_a_right_check_digit_and_belong_to_no_one():
    surrogates = Surrogates(b"k" * 16)
    new = surrogates.surrogate("resident_id", "110105 19491231 002X", "row 1")
    digits = new.replace(" ", "")
    assert re.fullmatch(r"99\d{4} \d{8} \d{3}[\dX]", new)
    assert resident_check(digits[:17]) == digits[17]
    assert not is_resident_id(digits)
    assert int(digits[16]) % 2 == 0  # the sex stays
    born = read_date("1949-12-31")[0] + surrogates.shift("row 1")
    assert digits[6:14] == f"{born:%Y%m%d}"
    nhs = surrogates.surrogate("nhs_number", "943 476 5919").replace(" ", "")
    assert nhs.startswith("999") and nhs_check(nhs) == int(nhs[9])
    assert is_luhn(surrogates.surrogate("bank_card", "4532015112830366"))
    assert surrogates.surrogate("ssn", "123-45-6789").startswith("666-")
    assert re.fullmatch(r"\(\d{3}\) 555-01\d\d", surrogates.surrogate("phone", "(415) 556-2671"))
    assert surrogates.surrogate("phone", "+86 13812345678").startswith("+99 9")
    assert surrogates.surrogate("age", "97") == "90"


def test_what_can_be_made_unmistakable_is_not_found_in_redacted_records():
    redact = Redactor(Surrogates(b"k" * 16))
    sure = {"resident_id", "ssn", "nhs_number", "email", "ip", "url"}
    for number, (text, _, _) in enumerate(records(400, seed=2)):
        again = redact(text, f"row {number}")
        assert not sure & {span.kind for span in find(again)}, again


def test_no_identifier_of_the_seeded_records_survives():
    redact = Redactor(Surrogates(b"k" * 16))
    for number, (text, gold, _) in enumerate(records(400, seed=3)):
        covered = find(text)
        again = redact(text, f"row {number}")
        for kind, start, end in gold:
            if any(span.start <= start and span.end >= end for span in covered) and end - start > 3 and kind != "age":
                assert text[start:end] not in again, (kind, again)


def test_the_days_between_the_dates_of_a_record_stay():
    surrogates = Surrogates(b"k" * 16)
    for record in map(str, range(30)):
        text = "2023年5月6日入院，5月16日出院"
        new = surrogates.replace(text, find(text), record)
        first, second = (new[span.start : span.end] for span in find(new))
        day = read_date(first)[0]
        gap = read_date(second, day.year)[0] - day
        assert gap.days in (10, 10 - 365, 10 - 366)
        assert first != "2023年5月6日"


def test_the_shift_is_of_the_record_and_never_none():
    surrogates = Surrogates(b"k" * 16)
    shifts = {surrogates.shift(f"data.jsonl:{number}").days for number in range(5000)}
    assert 0 not in shifts
    assert (min(shifts), max(shifts)) == (-365, 365)


# ---------------------------------------------------------------- rows


def test_every_string_and_number_of_a_row_is_redacted_and_the_rest_stays():
    new = Redactor(Surrogates(b"k" * 16))(ROW, "a.jsonl:1")
    assert not [secret for secret in SECRETS if secret in json.dumps(new, ensure_ascii=False)]
    assert list(new) == list(ROW)
    assert new["score"] == 0.5 and new["notes"][0]["ok"] is None and new["notes"][0]["flag"] is True
    assert isinstance(new["手机"], int)
    assert new["记录"].count(new["姓名"]) == 2
    assert "阿莫西林0.5g" in new["记录"]


@pytest.mark.parametrize("name", ["张", "王", "John", "Smith", "A", "欧阳"])
def test_no_name_stands_for_itself(name):
    made = {Surrogates(bytes([i % 256, i >> 8]) * 8).surrogate("name", name) for i in range(600)}
    assert len(made) > 20 and name not in made


def test_keys_that_are_values_are_redacted_too():
    new = Redactor(Surrogates(b"k" * 16))({"2023-05-06": "x", "13812345678": {"question": "y"}}, "r")
    assert list(new.values()) == ["x", {"question": "y"}]
    assert "2023-05-06" not in new and "13812345678" not in new


def test_tags_name_the_kind_and_kept_kinds_stay():
    redact = Redactor(Surrogates(), {"name", "phone"}, "tag")
    new = redact(ROW, "r")
    assert new["姓名"] == "[NAME]" and new["手机"] == "[PHONE]"
    assert "2023年5月6日" in new["记录"]
    assert set(redact.counts) == {"name", "phone"}


def test_a_bare_name_key_counts_only_beside_others_of_a_person():
    assert [span.kind for _, span in scan({"name": "张仲景", "dose": "3g"})] == []
    assert [span.kind for _, span in scan({"name": "张仲景", "age": "33"})] == ["name"]
    assert [span.kind for _, span in scan({"name": "Jane Doe", "sex": "F"})] == ["name"]


# ---------------------------------------------------------------- phi-scan


def test_scan_counts_by_kind_field_and_file_and_shows_no_text(capsys):
    write("a.jsonl", ROW, {"text": "nothing"})
    assert main(["data", "phi-scan", "a.jsonl", "--fields"]) == 0
    told = capsys.readouterr()
    assert not [secret for secret in SECRETS if secret in told.out + told.err]
    assert "record_number: 1; " in told.out
    assert "  a.jsonl:1: notes[0].text 21-27" in told.out
    assert "  notes[].text: name 2, record_number 1" in told.out
    assert "2 rows: 11 identifiers in 1 of them" in told.out
    assert "Presidio or its English spaCy model is not installed" in told.out
    assert "not found by any recogniser here" in told.out


def test_scan_shows_text_fails_and_limits_kinds_when_told(capsys):
    write("a.jsonl", ROW)
    assert main(["data", "phi-scan", "a.jsonl", "--only", "phone", "--show-text", "--fail"]) == 2
    assert capsys.readouterr().out.count("[13812345678]") == 1
    assert main(["data", "phi-scan", "a.jsonl", "--only", "email", "--fail"]) == 0
    assert main(["data", "phi-scan", "a.jsonl", "--only", "emails"]) == 2
    assert "no kind 'emails'" in capsys.readouterr().err


def test_scan_as_json_names_every_place_of_a_folder(capsys):
    Path("f").mkdir()
    write("f/one.jsonl", *[{"text": "电话13812345678"}] * 30)
    write("f/two.jsonl", {"text": "a@b.cn"})
    assert main(["data", "phi-scan", "f", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["by_file"] == {"one.jsonl": {"phone": 30}, "two.jsonl": {"email": 1}}
    assert told["counts"] == {"phone": 30, "email": 1}
    assert told["places"][0] == {"kind": "phone", "origin": "one.jsonl:1", "field": "text", "start": 2, "end": 13}
    assert len(told["places"]) == 31 and told["rows_with_identifiers"] == 31


def test_a_key_that_may_be_a_value_is_not_shown(capsys):
    write("a.jsonl", {"13812345678": "a@b.cn"})
    assert main(["data", "phi-scan", "a.jsonl", "--json"]) == 0
    told = capsys.readouterr().out
    assert "13812345678" not in told
    assert json.loads(told)["by_field"] == {"key 1": {"email": 1}, "key 1 (key)": {"phone": 1}}


def test_rows_that_cannot_be_read_are_counted_and_the_others_scanned(capsys):
    Path("a.jsonl").write_text('{"text": "a@b.cn"}\n{"text": "c@d\n{"text": "e@f.cn"}\n', encoding="utf-8")
    assert main(["data", "phi-scan", "a.jsonl"]) == 0
    told = capsys.readouterr()
    assert "note: 1 rows could not be read and were not searched" in told.out
    assert "2 rows: 2 identifiers" in told.out


# ---------------------------------------------------------------- redact


def test_redact_writes_the_same_rows_privately_and_says_what_it_is_not(capsys):
    write("a.jsonl", ROW, {"text": "nothing"})
    Path("key").write_bytes(b"k" * 32)  # by chance, another key might call one person what another is called
    assert main(["data", "redact", "a.jsonl", "b.jsonl", "--key-file", "key"]) == 0
    told = capsys.readouterr().out
    assert "b.jsonl: 2 rows, 11 identifiers replaced: " in told
    assert "This is not anonymised data." in told
    assert "not found by any recogniser here" in told
    assert not [secret for secret in SECRETS if secret in told + Path("b.jsonl").read_text(encoding="utf-8")]
    assert rows("b.jsonl")[1] == {"text": "nothing"}
    assert stat.S_IMODE(Path("b.jsonl").stat().st_mode) == 0o600
    assert sorted(path.name for path in Path().iterdir()) == ["a.jsonl", "b.jsonl", "key"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "xlsx", "json"])
def test_redact_keeps_the_form_of_a_table(suffix):
    Path("a.csv").write_text('姓名,手机,记录\n张伟,13812345678,"张伟, ""高热"""\n李娜,,=1+1\n', encoding="utf-8")
    assert main(["data", "redact", "a.csv", f"b.{suffix}", "--key-file", _key()]) == 0
    if suffix == "xlsx":
        sheet = openpyxl.load_workbook("b.xlsx").active
        header, one, two = sheet.iter_rows(values_only=True)
        assert [cell.data_type for cell in sheet[3]] != ["f"] and sheet["C3"].data_type == "s"
    elif suffix == "json":
        table = json.loads(Path("b.json").read_text(encoding="utf-8"))
        header, one, two = (tuple(table[0]), *(tuple(row.values()) for row in table))
    else:
        with Path(f"b.{suffix}").open(encoding="utf-8", newline="") as file:
            header, one, two = map(tuple, csv.reader(file, delimiter="\t" if suffix == "tsv" else ","))
    assert stat.S_IMODE(Path(f"b.{suffix}").stat().st_mode) == 0o600
    assert header == ("姓名", "手机", "记录")
    assert one[0] not in ("张伟", "") and one[1].startswith("12") and len(one[1]) == 11
    assert one[2] == f'{one[0]}, "高热"'
    assert two[2] == "=1+1"


def _key() -> str:
    Path("key").write_bytes(b"0123456789abcdef")
    return "key"


def test_files_redacted_with_one_key_agree_and_without_it_they_do_not():
    write("a.jsonl", {"姓名": "张伟杰"})
    for name in ("b", "c"):
        assert main(["data", "redact", "a.jsonl", f"{name}.jsonl", "--key-file", _key()]) == 0
    assert rows("b.jsonl") == rows("c.jsonl")
    write("a.jsonl", *[{"住院号": f"{number:08d}"} for number in range(20)])
    for name in ("d", "e"):
        assert main(["data", "redact", "a.jsonl", f"{name}.jsonl"]) == 0
    assert rows("d.jsonl") != rows("e.jsonl")


def test_kinds_to_keep_stay_and_the_report_says_so(capsys):
    write("a.jsonl", ROW)
    assert main(["data", "redact", "a.jsonl", "b.jsonl", "--keep", "date,record_number"]) == 0
    new = json.dumps(rows("b.jsonl"), ensure_ascii=False)
    assert "2023年5月6日" in new and "4492-A" in new and "张伟" not in new
    assert "left as they are: date, record_number" in capsys.readouterr().out


def test_lines_of_text_stay_lines_of_text():
    Path("a.txt").write_text("患者张伟，女\n体温正常\n", encoding="utf-8")
    assert main(["data", "redact", "a.txt", "b.txt", "--style", "tag"]) == 0
    assert Path("b.txt").read_text(encoding="utf-8") == "患者[NAME]，女\n体温正常\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.jsonl", "there.jsonl"], "exists already. Give -f"),
        (["a.jsonl", "a.jsonl", "-f"], "the output is an input too"),
        (["a.jsonl", "b.parquet"], "the output must end in .jsonl"),
        (["a.jsonl", "b.csv"], "a.jsonl:1: a row has nested fields"),
        (["uneven.jsonl", "b.csv"], "uneven.jsonl:2: a row has other fields"),
        (["broken.jsonl", "b.jsonl"], "broken.jsonl:2"),
        (["a.jsonl", "b.jsonl", "--keep", "names"], "--keep: no kind 'names'"),
        (["a.jsonl", "b.jsonl", "--key-file", "short"], "4 bytes; --key-file wants"),
        (["a.jsonl", "b.jsonl", "--key-file", "none"], "no such file; --key-file wants"),
    ],
)
def test_a_refusal_is_one_line_without_row_text_and_leaves_no_file(words, message, capsys):
    write("a.jsonl", ROW)
    write("uneven.jsonl", {"text": "x"}, {"text": "y", "more": "张伟"})
    Path("broken.jsonl").write_text('{"text": "张伟"}\n{"text": \n{"text": "x"}\n', encoding="utf-8")
    write("there.jsonl")
    Path("short").write_bytes(b"abcd")
    before = sorted(path.name for path in Path().iterdir())
    assert main(["data", "redact", *words]) == 2
    told = capsys.readouterr()
    assert message in told.err
    assert told.err.count("\n") == 1
    assert not [secret for secret in SECRETS if secret in told.err + told.out]
    assert sorted(path.name for path in Path().iterdir()) == before


# ---------------------------------------------------------------- Presidio


def test_without_presidio_or_a_model_the_scan_says_so_and_looks_for_it_without_importing(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda name: None)
    assert presidio.installed_model() is None
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda name: name in ("presidio_analyzer",) or None)
    assert presidio.installed_model() is None
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda name: name in ("en_core_web_sm",) or None)
    assert presidio.installed_model() is None
    known = ("presidio_analyzer", "en_core_web_sm", "en_core_web_md")
    monkeypatch.setattr(presidio.importlib.util, "find_spec", lambda name: name in known or None)
    assert presidio.installed_model() == "en_core_web_md"


def test_another_finder_is_asked_in_every_row(monkeypatch, capsys):
    """The commands hand each text to what `presidio_finder` gives, and its names count like our own."""
    from medtune.privacy.spans import Span

    def finder(text: str):
        return [Span("name", text.index("Quill"), text.index("Quill") + 9)] if "Quill was" in text else []

    monkeypatch.setattr(presidio, "installed_model", lambda: "en_core_web_lg")
    monkeypatch.setattr(presidio, "presidio_finder", lambda model: lambda text: finder(text))
    write("a.jsonl", {"text": "Quill was here", "more": "then Quill was gone"})
    assert main(["data", "phi-scan", "a.jsonl"]) == 0
    told = capsys.readouterr().out
    assert "name: 2; " in told
    assert "English names and places by Presidio with en_core_web_lg" in told
    assert main(["data", "phi-scan", "a.jsonl", "--no-presidio"]) == 0
    assert "1 rows: 0 identifiers" in capsys.readouterr().out


@pytest.mark.slow
def test_the_real_presidio_finds_names_without_context(tmp_path):
    """With a spaCy model made here, of two names and two places; skips where Presidio is not installed."""
    pytest.importorskip("presidio_analyzer")
    import spacy

    language = spacy.blank("en")
    names = [("PERSON", "Quillworth Zebrowski"), ("GPE", "Ashford"), ("GPE", "Ohio")]
    language.add_pipe("entity_ruler").add_patterns([{"label": label, "pattern": text} for label, text in names])
    language.to_disk(tmp_path / "model")
    finder = presidio.presidio_finder(str(tmp_path / "model"))
    text = "Quillworth Zebrowski of Ashford, Ohio came. Zebrowski left."
    assert [(kind, text[start:end]) for kind, start, end in find(text, more=finder)] == [
        ("name", "Quillworth Zebrowski"),
        ("address", "Ashford"),
        ("name", "Zebrowski"),
    ]
    assert find(text) == []
