"""`medtune data check`: each class of defect is found where it stands, clean rows raise no alarm, no text leaks."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from medtune.cli import main
from medtune.data.defects import DEFECTS, FAULTS, NOTES
from medtune.data.doctor import Doctor, parse_limit
from medtune.data.readers import Rows, read_data
from medtune.data.records import Row
from medtune.errors import DataError, UsageError

SECRET = "Zhang Wei, ward 7"
LONG = "The patient takes one tablet of it every morning with a glass of water."


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def turn(question: str = "What is a fever?", answer: str = "38 °C or more.") -> dict:
    return {"conversation": [{"system": "", "input": question, "output": answer}]}


def chat(*pairs: tuple[str, str]) -> dict:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def write(rows: list, name: str = "rows.jsonl") -> str:
    Path(name).write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return name


def found(rows: list, **options) -> list[tuple[str, str, str]]:
    """(class, origin, field) of every finding, after one good row of the same shape."""
    doctor = Doctor(**options)
    return [(f.defect, f.origin, f.field) for _, seen in doctor.check(read_data(write(rows))) for f in seen]


GOOD = turn("Is aspirin an NSAID?", "Yes, it is.")
BAD = {
    "empty_answer": (turn(answer=" "), "conversation[0].output"),
    "control_character": (turn(answer="Take\x07 two."), "conversation[0].output"),
    "mojibake": (turn("Caf\ufffd?"), "conversation[0].input"),
    "placeholder": (turn(answer="I am <NAME>, made by <AUTHOR>."), "conversation[0].output"),
    "zero_width": (turn("What is a\u200b fever?"), "conversation[0].input"),
    "special_token": (turn("Ignore that.<|im_end|>"), "conversation[0].input"),
    "language_mix": (turn("布洛芬应该怎么吃才比较安全，一天可以吃几次？", LONG), ""),
    "missing_field": ({"conversation": [{"input": "Why?", "output": "So."}, {"input": "Why?"}]}, "conversation[1]"),
    "wrong_type": ({"conversation": [{"input": "Why?", "output": ["a", "b"]}]}, "conversation[0].output"),
}


@pytest.mark.parametrize("defect", BAD)
def test_a_defect_is_found_with_its_row_and_field(defect):
    row, field = BAD[defect]
    assert found([GOOD, row]) == [(defect, "rows.jsonl:2", field)]


def test_an_empty_question_is_found():
    assert found([GOOD, turn(question="  ")]) == [("empty_question", "rows.jsonl:2", "conversation[0].input")]


def test_roles_out_of_order_are_found():
    good = chat(("user", "Hi"), ("assistant", "Hello"))
    twice = chat(("user", "Hi"), ("assistant", "Hello"), ("assistant", "Again"))
    nobody = chat(("user", "Hi"), ("nobody", "Hello"))
    told = found([good, twice, nobody])
    assert [(defect, origin) for defect, origin, _ in told] == [
        ("role_order", "rows.jsonl:2"),
        ("role_order", "rows.jsonl:3"),
    ]


def test_a_dialogue_that_ends_on_a_question_is_noted():
    row = chat(("user", "Hi"), ("assistant", "Hello"), ("user", "And now?"))
    assert found([row]) == [("open_question", "rows.jsonl:1", "messages[2]")]


def test_the_same_words_are_a_duplicate_also_in_another_file():
    doctor = Doctor()
    list(doctor.check(read_data(write([turn(), GOOD], "a.jsonl"))))
    again = turn("what is a FEVER", "38 °C, or more")
    findings = [f for _, seen in doctor.check(read_data(write([again], "b.jsonl"))) for f in seen]
    assert [(f.defect, f.origin, f.told) for f in findings] == [
        ("duplicate", "b.jsonl:1", "the same words as a.jsonl:1")
    ]
    assert (doctor.told.num_rows, doctor.told.num_bad, doctor.told.num_noted) == (3, 0, 1)


def test_a_row_longer_than_the_limit_is_found(tiny_tokenizer):
    from medtune.data.lengths import token_counter

    count = token_counter(tiny_tokenizer)
    rows = [GOOD, turn(answer="one two " * 200)]
    assert found(rows, count=count, max_length=100) == [("too_long", "rows.jsonl:2", "")]
    assert found(rows, count=count, max_length=2000) == []


def test_the_format_is_told_from_the_first_good_row():
    told = found([{"note": "none"}, GOOD, turn()])
    assert told == [("misfit", "rows.jsonl:1", "")]


def test_every_row_is_reported_where_no_format_fits():
    told = found([{"note": "a"}, {"note": "b\x00"}])
    assert [defect for defect, _, _ in told] == ["misfit", "misfit", "control_character"]


def test_what_looks_like_a_defect_and_is_none_raises_no_alarm():
    rows = [
        turn("How do I log in to GitHub?", "Use ${{ secrets.TOKEN }} in the workflow, and {{Jaundice}} in the wiki."),
        turn("Qu'est-ce que la fièvre, à côté des maux de tête?", "Élévation de la température. Ça dure trois jours."),
        turn("请翻译成英文：布洛芬每天吃三次，饭后服用，每次一片。", LONG),
        turn(
            "怎么用SQL查出年龄大于六十岁的病人？请写出代码。",
            "SELECT name FROM patients WHERE age > 60 ORDER BY name LIMIT 10;",
        ),
        turn(
            "下列药物中，哪一种属于非甾体抗炎药（NSAID）？",
            "Ibuprofen (布洛芬), not paracetamol, is one of the NSAIDs.",
        ),
        turn(
            "Is x < y and y > z?\r\n\tOr a < 3 mg?",
            "Yes: <b>bold</b>, 5 µg/l, π ≈ 3, “café” and “olé” — naïve…",
        ),
        turn("体温３８℃怎么办？", "①多喝水；②休息。～～《伤寒论》·【注】"),
        turn("Is the dose 5 mg\u00a0daily?", "Yes 👍🏽, 5 mg."),
    ]
    assert found(rows) == []


def test_the_embedded_data_has_no_false_alarm():
    doctor = Doctor()
    told = [f for _, seen in doctor.check(read_data("medication-qa")) for f in seen]
    assert {f.defect for f in told} <= {"control_character", "zero_width", "duplicate"}
    assert sum(f.defect == "control_character" for f in told) <= 1


def test_clean_real_files_have_no_fault(shared):
    clean = (
        "medicalgpt/medical_sft_1K_format.jsonl",
        "huatuo-llama/llama_data.json",
        "caregpt/openai_messages_output.jsonl",
        "medicalgpt/fever.txt",
        "cmmlu-medical/test/professional_medicine.csv",
        "llama-factory/oaast_sft_zh.json",
    )
    for name in clean:
        doctor = Doctor()
        faults = [f for _, seen in doctor.check(read_data(shared / "data" / name)) for f in seen if f.is_fault]
        assert faults == [], name


# ---------------------------------------------------------------- the command


def check(*words: str) -> int:
    return main(["data", "check", *words])


def test_the_exit_code_is_0_for_clean_rows_and_2_for_a_bad_one(capsys):
    assert check(write([GOOD, turn()])) == 0
    assert capsys.readouterr().out == "2 rows: 2 good, 0 bad\n"
    assert check(write([GOOD, turn(answer="")])) == 2
    told = capsys.readouterr().out
    assert "fault empty_answer: 1 rows" in told
    assert "  rows.jsonl:2: conversation[0].output: " in told
    assert told.endswith("2 rows: 1 good, 1 bad (more than --max-bad-rows 0)\n")


@pytest.mark.parametrize(("limit", "code"), [("1", 0), ("0", 2), ("50%", 0), ("49.9%", 2), ("100%", 0)])
def test_max_bad_rows_is_a_number_or_a_share(limit, code):
    assert check(write([GOOD, turn(answer="")]), "--max-bad-rows", limit) == code


@pytest.mark.parametrize("limit", ["-1", "101%", "many", "1.5", "%"])
def test_another_limit_is_refused(limit):
    with pytest.raises(UsageError, match="wanted a number of rows"):
        parse_limit(limit, "--max-bad-rows")


def test_notes_count_as_bad_rows_under_strict_only():
    name = write([GOOD, turn("a\u200bb?")])
    assert check(name) == 0
    assert check(name, "--strict") == 2


def test_bad_rows_go_to_a_private_file_and_good_ones_to_another():
    bad = turn(answer="")
    name = write([GOOD, bad, turn()])
    assert check(name, "--quarantine", "bad.jsonl", "--good", "good.jsonl", "--max-bad-rows", "1") == 0
    quarantined = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [row["row"] for row in quarantined] == [bad]
    assert quarantined[0]["defects"][0]["defect"] == "empty_answer"
    assert quarantined[0]["defects"][0]["origin"] == "rows.jsonl:2"
    assert stat.S_IMODE(Path("bad.jsonl").stat().st_mode) == 0o600
    assert [json.loads(line) for line in Path("good.jsonl").read_text().splitlines()] == [GOOD, turn()]
    assert check(name, "--good", "good.jsonl") == 2  # exists already
    assert check(name, "--good", "good.jsonl", "-f", "--max-bad-rows", "1") == 0
    assert [json.loads(line) for line in Path("good.jsonl").read_text().splitlines()] == [GOOD, turn()]


def test_no_text_of_a_row_is_shown_unless_asked_for(capsys):
    rows = [turn(SECRET, f"{SECRET}\x07"), {"conversation": [{"input": SECRET}]}, {"conversation": SECRET}]
    name = write([GOOD, *rows])
    for options in ((), ("--all",), ("--json",)):
        check(name, *options)
        assert "Zhang" not in capsys.readouterr().out
    check(name, "--show-text")
    assert "Zhang" in capsys.readouterr().out


def test_a_table_without_a_header_row_does_not_show_its_first_row(capsys):
    Path("t.csv").write_text(f'"{SECRET} was here for 12345 days?",A,B\n"q\x07",C,D\n', encoding="utf-8")
    assert check("t.csv", "--all") == 2
    told = capsys.readouterr().out
    assert "Zhang" not in told
    assert "column 1: the text holds control characters" in told


def test_json_lists_counts_and_places(capsys):
    check(write([GOOD, turn(answer=""), turn("a\u200bb?")]), "--json")
    told = json.loads(capsys.readouterr().out)
    assert {key: told[key] for key in ("rows", "bad", "noted", "passed", "format")} == {
        "rows": 3,
        "bad": 1,
        "noted": 1,
        "passed": False,
        "format": "conversation",
    }
    assert {(f["defect"], f["origin"], f["fault"]) for f in told["findings"]} == {
        ("empty_answer", "rows.jsonl:2", True),
        ("zero_width", "rows.jsonl:3", False),
    }


def test_a_line_that_is_no_json_is_a_bad_row_and_the_rest_is_checked(capsys):
    Path("rows.jsonl").write_text(f"{json.dumps(GOOD)}\n{{broken\n{json.dumps(turn(answer=''))}\n", encoding="utf-8")
    assert check("rows.jsonl", "--json", "--quarantine", "bad.jsonl") == 2
    told = json.loads(capsys.readouterr().out)
    assert told["defects"] == {"unreadable": 1, "empty_answer": 1}
    assert told["rows"] == 3
    lines = [json.loads(line) for line in Path("bad.jsonl").read_text().splitlines()]
    assert [line["defects"][0]["defect"] for line in lines] == ["unreadable", "empty_answer"]


def test_a_file_that_is_no_data_is_refused_and_nothing_is_written(capsys):
    Path("empty.jsonl").write_text("")
    assert check("empty.jsonl", "--good", "good.jsonl") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path("good.jsonl").exists()


def test_faults_and_notes_are_apart_and_named_in_the_page():
    from conftest import ROOT

    assert not set(FAULTS) & set(NOTES)
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert [name for name in DEFECTS if f"`{name}`" not in page] == []


def test_a_data_set_without_rows_is_an_error():
    from medtune.data.readers import Rows

    with pytest.raises(DataError, match="no rows"):
        list(Doctor().check(Rows(lambda: iter(()))))


def defects_of(*rows):
    rows = [Row(fields, f"a.jsonl:{number}") for number, fields in enumerate(rows, 1)]
    return [[f.defect for f in found] for _, found in Doctor().check(Rows(lambda: iter(rows)))]


def test_an_answer_that_is_its_only_question_is_a_fault_and_a_greeting_is_not():
    again = "Take one tablet daily."
    told = {"messages": [{"role": r, "content": c} for r, c in (("user", "Hi"), ("assistant", "Hi"))] * 2}
    assert defects_of({"question": again, "answer": again}, {"question": "你好", "answer": "你好"}, told) == [
        ["echo"],
        [],
        [],
    ]


def test_a_huge_message_is_a_fault_of_a_dialogue_and_not_of_a_document():
    huge = "a b c " * 200_000
    assert defects_of({"question": "q", "answer": huge}) == [["huge_text"]]
    assert defects_of({"text": huge}) == [[]]


def test_a_row_of_another_kind_than_the_file_is_a_misfit():
    rated = {"prompt": "p", "completion": "c", "label": True}
    assert defects_of(rated, {**rated, "prompt": "o", "label": "maybe"}) == [[], ["misfit"]]


@pytest.mark.parametrize("nothing", [None, "", "nan", "NaN"])
def test_a_question_of_nothing_is_a_fault_and_a_text_to_learn_is_not(nothing):
    assert defects_of({"question": nothing, "answer": "Rest."}) == [["empty_question"]]
    assert defects_of({"conversation": [{"input": "", "output": "Rest."}]}) == [[]]


def test_a_decoders_mark_read_as_another_encoding_is_mojibake():
    assert defects_of({"question": "q", "answer": "rest ï¿½"}) == [["mojibake"]]
    assert defects_of({"question": "q", "answer": "une naïve¿"}) == [[]]
