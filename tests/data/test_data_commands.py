"""The data commands by the real command line: what they write, print and refuse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest

from medtune.cli import main
from medtune.data.map_fns import DATASET_FORMATS
from medtune.data.records import Conversation, Message, to_conversation
from medtune.data.structured import to_turns, write_structured
from medtune.errors import DataError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "drugs.csv"
    path.write_text("Question,Type,Answer\nq1,x,a1\nq2,x,\n  Q1?,x,a3\n", encoding="utf-8")
    return path


def rows(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


COLUMNS = ("--input-column", "Question", "--output-column", "C")


def test_convert_writes_one_structured_conversation_a_line(table, capsys):
    table.write_text("Question,Answer\n什么是发热？,体温升高。\n", encoding="utf-8")
    assert main(["data", "convert", str(table), "o.jsonl", *COLUMNS[:3], "B", "--system", "你是医生。"]) == 0
    text = Path("o.jsonl").read_text(encoding="utf-8")
    assert text == '{"conversation": [{"system": "你是医生。", "input": "什么是发热？", "output": "体温升高。"}]}\n'
    assert capsys.readouterr().out.startswith("o.jsonl: 1 conversations from")


def test_convert_writes_an_array_to_json_and_reads_it_back(table):
    assert main(["data", "convert", str(table), "o.json", *COLUMNS, "--drop-empty"]) == 0
    assert [c["conversation"][0]["output"] for c in json.loads(Path("o.json").read_text())] == ["a1", "a3"]
    assert main(["data", "convert", "o.json", "again.jsonl"]) == 0
    assert rows("again.jsonl") == json.loads(Path("o.json").read_text())


def test_convert_stops_at_empty_answers_unless_told_to_drop_them(table, capsys):
    assert main(["data", "convert", str(table), "o.jsonl", *COLUMNS]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "1 of 3 rows have an empty answer: drugs.csv:3. Fill them in, or leave them out with --drop-empty" in told
    assert [path.name for path in Path().iterdir()] == ["drugs.csv"]
    assert main(["data", "convert", str(table), "o.jsonl", *COLUMNS, "--drop-empty"]) == 0
    assert "left out 1 rows with an empty answer: drugs.csv:3" in capsys.readouterr().out


def test_convert_replaces_a_file_only_when_told(table, capsys):
    Path("o.jsonl").write_text("mine")
    words = ["data", "convert", str(table), "o.jsonl", *COLUMNS, "--drop-empty"]
    assert main(words) == 2
    assert Path("o.jsonl").read_text() == "mine"
    assert "exists already. Give -f" in capsys.readouterr().err
    assert main([*words, "-f"]) == 0
    assert len(rows("o.jsonl")) == 2


def test_convert_may_write_over_the_file_it_reads(table):
    assert main(["data", "convert", str(table), "o.jsonl", *COLUMNS, "--drop-empty"]) == 0
    assert main(["data", "convert", "o.jsonl", "o.jsonl", "--system", "s", "-f"]) == 0
    assert [c["conversation"][0]["system"] for c in rows("o.jsonl")] == ["s", "s"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["drug.csv", "o.jsonl"], "no such file or folder. Did you mean 'drugs.csv'"),
        (["drugs.csv", "o.jsonl", "--input-column", "Question"], "--output-column is missing"),
        (["drugs.csv", "o.jsonl", "--input-column", "Q", "--output-column", "Z"], "no column 'Q'"),
        (["drugs.csv", "o.jsonl", "--sheet", "S"], "only xlsx and xls files have sheets"),
        (["drugs.csv", "o.jsonl", "--map-fn", "alpacca"], "unknown dataset_map_fn 'alpacca'"),
        (["odd.csv", "o.jsonl"], "no known format fits a row with the keys 'Topic', 'Notes'"),
        (["drugs.csv", "o.csv", *COLUMNS, "--drop-empty"], "must end in .jsonl or .json"),
        (["gb.csv", "o.jsonl", "--encoding", "utf-8"], "It decodes as gb18030"),
    ],
)
def test_bad_input_is_one_line_exit_2_and_nothing_written(table, words, message, capsys):
    Path("odd.csv").write_text("Topic,Notes\nfever,high\n", encoding="utf-8")
    Path("gb.csv").write_bytes("问题,答案\n发热,升高\n".encode("gb18030"))
    assert main(["data", "convert", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["drugs.csv", "gb.csv", "odd.csv"]


def test_convert_reads_a_sheet_of_a_workbook():
    book = openpyxl.Workbook()
    book.active.append(["nothing"])
    sheet = book.create_sheet("DrugQA")
    sheet.append(["Question", "Answer"])
    sheet.append(["q", 5])
    book.save("two.xlsx")
    words = ["data", "convert", "two.xlsx", "o.jsonl", "--input-column", "A", "--output-column", "B"]
    assert main(words) == 2
    assert main([*words, "--sheet", "DrugQA"]) == 0
    assert rows("o.jsonl") == [{"conversation": [{"system": "", "input": "q", "output": "5"}]}]


def test_a_fault_while_writing_leaves_no_file(tmp_path):
    good = Conversation((Message("user", "q"), Message("assistant", "a", True)), "a.jsonl:1")
    bad = Conversation((Message("user", "q"), Message("assistant", "\ud800", True)), "a.jsonl:2")
    with pytest.raises(DataError, match=r"a\.jsonl:2: the text holds half of a surrogate pair"):
        write_structured({tmp_path / "one.jsonl": [good], tmp_path / "two.jsonl": [good, bad]})
    assert list(tmp_path.iterdir()) == []


def test_turns_keep_the_system_text_the_loss_switch_and_an_unanswered_question():
    conversation = to_conversation(
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "q1"},
                {"role": "assistant", "content": "a1", "loss": False},
                {"role": "user", "content": "q2"},
            ]
        }
    )
    turns = to_turns(conversation)
    assert turns == {
        "conversation": [
            {"system": "s", "input": "q1", "output": "a1", "output_with_loss": False},
            {"input": "q2", "output": ""},
        ]
    }
    assert to_conversation(turns).messages[:4] == conversation.messages


def test_split_writes_both_parts_and_says_what_repeats(table, capsys):
    lines = [{"question": f"question {i}", "answer": f"answer {i % 9}"} for i in range(9)]
    lines.append({"question": "Question 0?", "answer": "another"})
    Path("qa.json").write_text(json.dumps(lines))
    assert main(["data", "split", "qa.json", "--ratio", "7:3", "--seed", "1", "--out-dir", "parts"]) == 0
    train, test = rows("parts/qa-train.jsonl"), rows("parts/qa-test.jsonl")
    assert (len(train), len(test)) == (7, 3)
    told = capsys.readouterr().out
    assert "repeated questions: 1 surplus rows; 0 questions stand in both parts" in told
    assert "shared answers: 0 test rows" in told
    first = Path("parts/qa-train.jsonl").read_bytes()
    assert main(["data", "split", "qa.json", "--ratio", "7:3", "--seed", "1", "--out-dir", "parts"]) == 2
    assert main(["data", "split", "qa.json", "--ratio", "7:3", "--seed", "1", "--out-dir", "parts", "-f"]) == 0
    assert Path("parts/qa-train.jsonl").read_bytes() == first


def test_split_counts_answers_that_stand_in_both_parts_and_empty_ones(capsys):
    lines = [{"question": f"question {i}", "answer": "Ask your doctor."} for i in range(9)]
    lines.append({"question": "last", "answer": " "})
    Path("qa.json").write_text(json.dumps(lines))
    assert main(["data", "split", "qa.json"]) == 0
    told = capsys.readouterr().out
    shared = sum(row["conversation"][0]["output"] != " " for row in rows("qa-test.jsonl"))
    assert f"shared answers: {shared} test rows" in told
    assert "empty answers: 1 rows" in told


@pytest.mark.parametrize(("ratio", "message"), [("7-3", "neither two numbers"), ("99:1", "a part would be empty")])
def test_split_refuses_a_ratio_that_makes_no_two_parts(ratio, message, capsys):
    Path("qa.json").write_text(json.dumps([{"question": "a", "answer": "b"}, {"question": "c", "answer": "d"}]))
    assert main(["data", "split", "qa.json", "--ratio", ratio]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in Path().iterdir()] == ["qa.json"]


def test_list_dataset_format_prints_every_name_and_imports_nothing_heavy(capsys):
    code = (
        "import sys; from medtune.cli import main; main(['list-dataset-format']); "
        "sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'mmengine', 'numpy', 'datasets')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(DATASET_FORMATS)


def test_convert_gives_the_tutorials_published_file(shared):
    folder = shared / "data" / "internlm-tutorial-medqa2019"
    published = json.loads((folder / "MedQA2019-structured.jsonl").read_text(encoding="utf-8"))
    system = published[0]["conversation"][0]["system"]
    words = ["--sheet", "DrugQA", "--input-column", "A", "--output-column", "D", "--system", system]
    assert main(["data", "convert", str(folder / "MedQA2019.xlsx"), "medqa.jsonl", *words]) == 0
    assert rows("medqa.jsonl") == published
