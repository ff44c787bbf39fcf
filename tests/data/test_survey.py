"""`data inspect` and `data stats`: figures that are counted by hand here, and no text where none is wanted."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path

import openpyxl
import pytest

from medtune.cli import main
from medtune.data.describe import describe
from medtune.data.lengths import bins, histogram_lines, quantiles, token_counter
from medtune.data.readers import read_data
from medtune.data.row_file import new_rows
from medtune.data.survey import Surveyor, source_of
from medtune.errors import DataError, UsageError

SECRET = "Zhang Wei"
ROWS = [
    {"question": f"{SECRET} has a fever, what now?", "answer": "Rest and drink.", "ward": "3"},
    {"question": "发热怎么办？", "answer": "多喝水，休息。", "ward": ""},
    {"question": "发热怎么办？", "answer": "看医生。", "ward": None},
]


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(rows: list = ROWS, name: str = "rows.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return name


def survey(*names: str, **options):
    surveyor = Surveyor(**options)
    for name in names:
        assert list(surveyor.read(read_data(name)))
    return surveyor.told


def test_fields_languages_roles_and_turns_are_counted():
    told = survey(write())
    assert (told.num_rows, told.num_mapped, told.format, told.distinct_questions) == (3, 3, "question_answer", 2)
    ward = told.fields["ward"]
    assert (ward.filled, dict(ward.kinds), ward.longest) == (1, {"str": 2, "null": 1}, 1)
    assert {name: group.rows for name, group in told.languages.items()} == {"en": 1, "zh": 2}
    assert (dict(told.roles), dict(told.turns), dict(told.kinds)) == (
        {"user": 3, "assistant": 3},
        {1: 3},
        {"conversation": 3},
    )


def test_every_kind_of_record_is_counted():
    rows = [
        {"text": "Aspirin."},
        {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "label": True},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    ]
    assert dict(survey(write(rows)).kinds) == {"text": 1, "preference": 1, "rated": 1, "conversation": 1}


def test_tokens_are_those_of_the_chat_template_and_trained_ones_the_answers(tiny_tokenizer):
    told = survey(write(), count=token_counter(tiny_tokenizer))
    for row, tokens, trained in zip(ROWS, told.lengths, told.trained, strict=True):
        messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        ids = tiny_tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        end = len(tiny_tokenizer("\n", add_special_tokens=False)["input_ids"])
        assert tokens in (len(ids), len(ids) - end)  # the line break after the last turn is not trained
        assert trained == len(tiny_tokenizer(row["answer"], add_special_tokens=False)["input_ids"]) + 1
    assert told.sums() == {
        "rows": 3,
        "turns": 3,
        "tokens": sum(told.lengths),
        "trained_tokens": sum(told.trained),
    }
    assert sum(group.tokens for group in told.languages.values()) == sum(told.lengths)


def test_a_preference_counts_as_its_longer_side(tiny_tokenizer):
    count = token_counter(tiny_tokenizer)
    sides = ("Hello", "No, and that is a long answer.")
    alone = [{"prompt": "Hi", "response": side} for side in sides]
    longest = max(survey(write(alone), count=count).lengths)
    pairs = [{"prompt": "Hi", "chosen": a, "rejected": b} for a, b in (sides, sides[::-1])]
    assert list(survey(write(pairs), count=count).lengths) == [longest, longest]


def test_a_record_that_cannot_be_encoded_does_not_hide_the_others(tiny_tokenizer):
    from medtune.data.records import Conversation, Message

    def said(answer: str) -> Conversation:
        return Conversation((Message("user", "Hi"), Message("assistant", answer, True)))

    count = token_counter(tiny_tokenizer)
    assert count([said("a"), said("half \ud800 of a pair"), said("b")]) == [
        *count([said("a")]),
        None,
        *count([said("b")]),
    ]


def test_rows_that_cannot_be_counted_are_told(tiny_tokenizer):
    rows = [ROWS[0], {"question": "Why?", "answer": 3}, {"question": "Why?", "answer": "half \ud800 of a pair"}]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    told = survey("rows.jsonl", count=token_counter(tiny_tokenizer))
    assert told.num_rows + told.num_unreadable == 4
    assert told.num_unreadable + told.num_unrendered + told.num_misfits == 3
    assert len(told.lengths) == 1


def test_rows_with_nothing_to_learn_are_counted_by_their_reason(capsys):
    bad = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}], "label": False}
    told = survey(write([{**bad, "label": True}, bad]), map_fn="chosen")
    assert (told.num_mapped, told.num_misfits, dict(told.skipped)) == (1, 0, {"the answer is labelled as a bad one": 1})
    assert main(["data", "stats", "rows.jsonl", "--map-fn", "chosen", "--tokenizer", "none"]) == 0
    assert "rows with nothing to learn, the answer is labelled as a bad one: 1" in capsys.readouterr().out


def test_rivals_are_the_other_formats_that_read_the_rows():
    told = survey(write([{"instruction": "Why?", "input": "", "output": "So."}]))
    assert told.format == "alpaca"
    assert told.rivals["medical"] == told.rivals["default"] == 1.0
    assert "alpaca" not in told.rivals


def test_samples_are_drawn_by_seed_over_the_whole_file():
    name = write([{"text": str(i)} for i in range(200)])
    first, again, other = (survey(name, num_samples=3, seed=seed).samples for seed in (1, 1, 2))
    assert len(first) == 3
    assert first == again != other
    assert any(int(row.fields["text"]) > 3 for row in first)


def test_quantiles_and_bins():
    assert quantiles(list(range(101))) == {
        "min": 0,
        "p5": 5,
        "p25": 25,
        "p50": 50,
        "p75": 75,
        "p95": 95,
        "p99": 99,
        "max": 100,
    }
    assert quantiles([]) == {}
    edges, counts = bins([0, 15, 16, 31, 32, 1000])
    assert (edges.tolist(), counts.tolist()) == ([0, 16, 32, 64, 128, 256, 512, 1024], [2, 2, 1, 0, 0, 0, 1])
    lines = histogram_lines([40, 41, 100])
    assert [line.split() for line in lines] == [
        ["32", "-", "63", "2", "#" * 40],
        ["64", "-", "127", "1", "#" * 20],
    ]


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ("a.json[3]", "a.json"),
        ("a.zip!b/c.csv:7", "a.zip!b/c.csv"),
        ("a.xlsx!Drug QA!AB12", "a.xlsx!Drug QA"),
        ("owner/name[train]:0", "owner/name[train]"),
    ],
)
def test_the_source_of_a_row_is_its_origin_without_the_place(origin, source):
    assert source_of(origin) == source


def container(name: str) -> tuple[str, ...]:
    told = describe(name)
    return tuple(told.get(key, "") for key in ("container", "encoding", "delimiter", "suffix"))


def test_containers_are_told_from_their_content():
    Path("array.jsonl").write_text("[\n" + json.dumps(ROWS[0]) + "\n]")
    Path("lines.json").write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[1]) + "\n")
    Path("t.csv").write_bytes("问题;答案\n发热怎么办？;多喝水，休息。\n咳嗽怎么办？;看医生。\n".encode("gb18030"))
    Path("p.txt").write_text("Aspirin is an NSAID.\n", encoding="utf-16")
    openpyxl.Workbook().save("b.xlsx")
    Path("r.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    assert container("array.jsonl") == ("JSON array", "utf-8", "", ".jsonl, which the content is not")
    assert container("lines.json") == ("JSON lines", "utf-8", "", ".json, which the content is not")
    assert container("t.csv") == ("table", "gb18030", "';'", "")
    assert container("p.txt")[:2] == ("text", "utf-16")
    assert container("b.xlsx")[0] == "xlsx workbook"
    assert container("r.jsonl.gz")[0] == "gz"
    assert container(".")[0] == "folder"
    assert container("medication-qa")[0] == "xlsx workbook"


# ---------------------------------------------------------------- the commands


def test_inspect_shows_format_fields_lengths_and_three_samples(capsys):
    assert main(["data", "inspect", write(), "--plot", "lengths.png"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("rows.jsonl: container JSON lines, encoding utf-8, bytes ")
    assert "format question_answer: reads 100.0% of 3 rows; the first row has question, answer, ward" in told
    assert "ward                      33.3%" in told
    assert told.count("\nsample rows.jsonl:") == 3
    assert SECRET in told
    assert Path("lengths.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert main(["data", "inspect", "rows.jsonl", "--plot", "lengths.png"]) == 2


def test_inspect_without_text_shows_none(capsys):
    assert main(["data", "inspect", write(), "--no-text", "--tokenizer", "none"]) == 0
    assert main(["data", "inspect", "rows.jsonl", "--no-text", "--tokenizer", "none", "--json"]) == 0
    told = capsys.readouterr().out
    assert SECRET not in told
    assert "发热" not in told


def test_inspect_without_text_hides_the_first_row_of_a_table_that_has_no_header(capsys):
    write([{f"{SECRET} has had a fever for 12345 days?": "A", "question": "Why?", "answer": "B"}], "t.jsonl")
    main(["data", "inspect", "t.jsonl", "--no-text", "--tokenizer", "none"])
    main(["data", "inspect", "t.jsonl", "--no-text", "--tokenizer", "none", "--json"])
    told = capsys.readouterr().out
    assert "column 1" in told
    assert SECRET not in told


def test_inspect_cuts_long_fields_unless_they_are_wanted_in_full(capsys):
    name = write([{"text": "x" * 5000}])
    assert main(["data", "inspect", name, "--tokenizer", "none"]) == 0
    assert "x" * 401 not in capsys.readouterr().out
    assert main(["data", "inspect", name, "--tokenizer", "none", "--full"]) == 0
    assert "x" * 5000 in capsys.readouterr().out


def test_stats_tells_the_same_to_a_reader_and_to_a_machine(capsys):
    write()
    write([{"text": "Aspirin."}], "more.jsonl")
    assert main(["data", "stats", "rows.jsonl", "more.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert main(["data", "stats", "rows.jsonl", "more.jsonl", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == 4
    assert f"tokens {told['tokens']}, trained {told['trained_tokens']}" in shown
    assert {name: group["rows"] for name, group in told["sources"].items()} == {"rows.jsonl": 3, "more.jsonl": 1}
    assert SECRET not in shown + json.dumps(told)


# ---------------------------------------------------------------- files of rows


def test_rows_are_written_whole_or_not_at_all():
    for name in ("a.jsonl", "a.json"):
        with new_rows(Path(name)) as write_row:
            write_row({"a": 1})
            write_row({"b": "发热"})
        assert [row.fields for row in read_data(name)] == [{"a": 1}, {"b": "发热"}]
        with pytest.raises(UsageError, match="exists already"), new_rows(Path(name)):
            pass
        before = Path(name).read_bytes()
        with pytest.raises(DataError, match="no form for"), new_rows(Path(name), force=True) as write_row:
            write_row({"a": float("nan")})
        assert Path(name).read_bytes() == before
    with new_rows(Path("none.json")):
        pass
    assert json.loads(Path("none.json").read_text()) == []
    with new_rows(Path("none.jsonl")):
        pass
    assert Path("none.jsonl").read_text() == ""
    assert sorted(path.name for path in Path().iterdir()) == ["a.json", "a.jsonl", "none.json", "none.jsonl"]


def test_a_private_file_of_rows_is_its_owners_alone_also_where_it_replaces_another():
    Path("q.jsonl").write_text("")
    Path("q.jsonl").chmod(0o644)
    with new_rows(Path("q.jsonl"), force=True, private=True) as write_row:
        write_row({"a": 1})
    assert stat.S_IMODE(Path("q.jsonl").stat().st_mode) == 0o600
