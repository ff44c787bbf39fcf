"""dataset_info.json is read as it is: both published ones whole, each key that matters, faults with their entry."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from medtune.data.map_fns import apply_map_fn, detect, resolve_map_fn
from medtune.data.mix import read_sources
from medtune.data.records import Preference, Row
from medtune.data.registry import find_entry, read_registry
from medtune.errors import DataError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: Any) -> bytes:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return Path(name).read_bytes()


def registry(**entries: dict) -> None:
    write("dataset_info.json", entries)


def records(name: str = "mm", **options: Any) -> list[Any]:
    rows: list[Row] = list(read_sources(name, **options))
    return [apply_map_fn(resolve_map_fn(None, row), row) for row in rows]


def said(record: Any) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in record.messages]


@pytest.mark.parametrize(("name", "number", "present"), [("caregpt", 36, 0), ("llama-factory", 104, 5)])
def test_every_entry_of_the_published_registries_is_read_and_those_with_a_file_load(shared, name, number, present):
    entries = read_registry(shared / "data" / name / "dataset_info.json")
    assert len(entries) == number
    assert [told for entry in entries.values() for told in entry.unknown] == []
    loaded = {}
    for entry in entries.values():
        if entry.place == "file_name" and (entry.file.parent / entry.location).exists():
            rows = list(entry.rows())
            map_fn = resolve_map_fn(None, *rows)
            loaded[entry.name] = {type(apply_map_fn(map_fn, row)).__name__ for row in rows}
    assert len(loaded) == present
    if loaded:
        assert loaded["dpo_en_demo"] == {"Preference"}
        assert loaded["kto_en_demo"] == loaded["alpaca_zh_demo"] == loaded["wiki_demo"] == {"Conversation"}


def test_a_name_is_read_from_the_registry_of_this_folder_or_of_data_or_the_one_that_is_named(tmp_path):
    row = [{"instruction": "Why?", "output": "So."}]
    for folder, number in ((".", 1), ("data", 2), ("else", 3)):
        write(f"{folder}/mm.json", row * number)
        write(
            f"{folder}/dataset_info.json", {"mm": {"file_name": "mm.json"}, f"only_{number}": {"file_name": "mm.json"}}
        )
    assert len(records("mm")) == 1
    assert len(records("only_2")) == 2
    assert len(records("mm", dataset_info="else")) == 3
    assert len(records("mm", dataset_info="else/dataset_info.json")) == 3
    with pytest.raises(DataError, match="no such file or folder"):
        list(read_sources("only_3/x.json"))
    Path("mm").mkdir()
    write("mm/rows.json", row * 5)
    assert len(records("mm")) == 5  # a folder of that name comes first, unless the registry is named
    assert len(records("mm", dataset_info="else")) == 3


def test_columns_of_alpaca_are_renamed_and_an_empty_one_is_not_there():
    write("mm.json", [{"text": "Why?", "": "left out", "answer": "So.", "input": "left out too"}])
    registry(
        mm={"file_name": "mm.json", "columns": {"prompt": "text", "query": "", "response": "answer", "history": ""}}
    )
    assert said(records()[0]) == [("user", "Why?"), ("assistant", "So.")]


def test_query_history_and_system_are_read():
    row = {"q": "And now?", "ctx": "38.5", "a": "Rest.", "old": [["Hi", "Hello"]], "sys": "Be brief."}
    write("mm.json", [row])
    columns = {"prompt": "q", "query": "ctx", "response": "a", "history": "old", "system": "sys"}
    registry(mm={"file_name": "mm.json", "columns": columns})
    assert said(records()[0]) == [
        ("system", "Be brief."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", "And now?\n38.5"),
        ("assistant", "Rest."),
    ]


def test_a_prompt_without_a_response_is_text_to_learn():
    write("mm.json", [{"content": "Aspirin is an NSAID."}])
    registry(mm={"file_name": "mm.json", "columns": {"prompt": "content", "query": "", "response": "", "history": ""}})
    assert said(records()[0]) == [("assistant", "Aspirin is an NSAID.")]


def test_sharegpt_tags_and_tools_are_read():
    tools = json.dumps([{"name": "dose", "description": "", "parameters": {}}])
    turns = [
        {"who": "sys", "says": "Be brief."},
        {"who": "patient", "says": "Dose?"},
        {"who": "call", "says": '{"name": "dose", "arguments": {"drug": "x"}}'},
        {"who": "result", "says": "5 mg"},
        {"who": "doctor", "says": "5 mg."},
    ]
    write("mm.json", [{"talk": turns, "functions": tools}])
    tags = {
        "role_tag": "who",
        "content_tag": "says",
        "user_tag": "patient",
        "assistant_tag": "doctor",
        "observation_tag": "result",
        "function_tag": "call",
        "system_tag": "sys",
    }
    columns = {"messages": "talk", "tools": "functions"}
    registry(mm={"file_name": "mm.json", "formatting": "sharegpt", "columns": columns, "tags": tags})
    record = records()[0]
    assert [m.role for m in record.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert record.messages[2].tool_calls == ({"name": "dose", "arguments": {"drug": "x"}},)
    assert record.tools[0]["function"]["name"] == "dose"


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        (
            {"ranking": True, "columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}},
            {"q": "Why?", "good": "So.", "bad": "No."},
        ),
        ({"ranking": True}, {"instruction": "Why?", "input": "", "output": ["So.", "No."]}),
        (
            {
                "ranking": True,
                "formatting": "sharegpt",
                "columns": {"messages": "talk", "chosen": "good", "rejected": "bad"},
            },
            {
                "talk": [{"from": "human", "value": "Why?"}],
                "good": {"from": "gpt", "value": "So."},
                "bad": {"from": "gpt", "value": "No."},
            },
        ),
    ],
    ids=["alpaca", "list output", "sharegpt"],
)
def test_a_ranking_is_a_preference(entry, row):
    write("mm.json", [row])
    registry(mm={"file_name": "mm.json", **entry})
    record = records()[0]
    assert isinstance(record, Preference)
    assert [m.content for m in (*record.prompt, *record.chosen, *record.rejected)] == ["Why?", "So.", "No."]


@pytest.mark.parametrize(
    ("entry", "row"),
    [
        ({"columns": {"prompt": "q", "response": "a", "kto_tag": "ok"}}, {"q": "Why?", "a": "So.", "ok": False}),
        (
            {"formatting": "sharegpt", "columns": {"messages": "talk", "kto_tag": "ok"}},
            {"talk": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}], "ok": False},
        ),
        (
            {"formatting": "openai", "columns": {"messages": "talk", "kto_tag": "ok"}},
            {"talk": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}], "ok": False},
        ),
    ],
    ids=["alpaca", "sharegpt", "openai"],
)
def test_a_kto_tag_is_the_label(entry, row):
    write("mm.json", [row])
    registry(mm={"file_name": "mm.json", **entry})
    record = records()[0]
    assert record.label is False
    assert said(record) == [("user", "Why?"), ("assistant", "So.")]


def test_the_sha1_of_a_file_is_enforced():
    data = write("mm.json", [{"instruction": "Why?", "output": "So."}])
    registry(mm={"file_name": "mm.json", "file_sha1": hashlib.sha1(data).hexdigest()})
    assert len(records()) == 1
    registry(mm={"file_name": "mm.json", "file_sha1": "0" * 40})
    with pytest.raises(DataError, match=f"its sha1 is {hashlib.sha1(data).hexdigest()}, file_sha1 says {'0' * 40}"):
        records()


def test_num_samples_are_drawn_by_seed():
    write("mm.json", [{"instruction": f"Ask {i}", "output": "So."} for i in range(40)])
    registry(mm={"file_name": "mm.json", "num_samples": 7})
    drawn = [[row.origin for row in read_sources("mm", seed=seed)] for seed in (1, 1, 2)]
    assert [len(d) for d in drawn] == [7, 7, 7]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_folder_beside_the_registry_is_read():
    for part in "ab":
        write(f"parts/{part}.json", [{"instruction": part, "output": "So."}])
    registry(mm={"file_name": "parts"})
    assert [said(r)[0][1] for r in records()] == ["a", "b"]


REFUSED = {
    "script": ({"script_url": "belle"}, "is a program to run, and medtune runs none"),
    "bucket": ({"cloud_file_name": "gs://x/y"}, "cloud_file_name is not read from here"),
    "pictures": (
        {"file_name": "mm.json", "columns": {"prompt": "text", "images": "i"}},
        "it has images; medtune trains on text",
    ),
    "absent file": ({"file_name": "mmm.json"}, "no 'mmm.json' beside it. Did you mean 'mm.json'?"),
    "path outside": ({"file_name": "../mm.json"}, "leads out of the registry's folder"),
    "absolute path": ({"file_name": "/etc/hostname"}, "leads out of the registry's folder"),
}
BROKEN = {
    "no place": ({"columns": {"prompt": "q"}}, "it names no place"),
    "formatting": ({"file_name": "mm.json", "formatting": "xml"}, "formatting 'xml' is none of alpaca, sharegpt"),
    "columns": ({"file_name": "mm.json", "columns": ["q"]}, "columns: wanted an object of names"),
    "no prompt": ({"file_name": "mm.json", "columns": {"response": "a"}}, "columns: it names no 'prompt'"),
    "sha1": ({"file_name": "mm.json", "file_sha1": 5}, "file_sha1: wanted text, got a int"),
    "samples": ({"file_name": "mm.json", "num_samples": 0}, "num_samples: wanted a whole number"),
    "ranking": ({"file_name": "mm.json", "ranking": True}, "'mm' is a ranking, and the row has no chosen"),
    "column": (
        {"file_name": "mm.json", "columns": {"prompt": "instr"}},
        "no column 'instr', which 'mm' names",
    ),
}


@pytest.mark.parametrize("kind", [*REFUSED, *BROKEN])
def test_an_entry_that_cannot_be_read_is_refused_with_the_reason(kind):
    entry, told = {**REFUSED, **BROKEN}[kind]
    write("mm.json", [{"instruction": "Why?", "output": "So."}])
    registry(mm=entry)
    with pytest.raises(DataError) as caught:
        records()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refused_entry_is_found_by_the_check_of_a_config():
    from medtune.build import check

    registry(mm=REFUSED["script"][0])
    assert "program to run" in "\n".join(check({"dataset": {"type": read_sources, "data_path": "mm"}}))


@pytest.mark.parametrize("text", ["[]", "{", '{"mm": 3}', '"mm"'])
def test_a_registry_that_is_none_is_refused(text):
    Path("dataset_info.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset_info\.json: (wanted an object|not readable)"):
        read_sources("mm")


def test_unknown_keys_columns_and_tags_are_reported(caplog):
    write("mm.json", [{"instruction": "Why?", "output": "So."}])
    columns = {"prompt": "instruction", "response": "output", "promt": "x"}
    registry(mm={"file_name": "mm.json", "stage": "sft", "colums": {}, "columns": columns, "tags": {"rol_tag": "r"}})
    records()
    told = caplog.text
    assert "unknown key 'colums' changes nothing. Did you mean 'columns'" in told
    assert "unknown column 'promt' changes nothing. Did you mean 'prompt'" in told
    assert "unknown tag 'rol_tag' changes nothing. Did you mean 'role_tag'" in told
    assert "stage" not in told


def test_hub_entries_are_handed_to_the_hub_with_subset_and_split(monkeypatch):
    asked = []

    def load(name, split, subset, streaming):
        asked.append((name, split, subset))
        return [{"instruction": "Why?", "output": "So."}]

    monkeypatch.setattr("medtune.data.hubs.load_hub", load)
    monkeypatch.setattr("medtune.data.hubs.download_modelscope", lambda name: asked.append(name) or Path("fetched"))
    write("fetched/rows.json", [{"instruction": "Why?", "output": "So."}])
    registry(
        mm={"hf_hub_url": "owner/name", "subset": "en", "split": "full"},
        ms={"ms_hub_url": "owner/other"},
    )
    assert len(records("mm")) == 1
    assert len(records("ms")) == 1
    assert asked == [("owner/name", "full", "en"), "owner/other"]


def test_the_rows_of_an_entry_are_told_by_the_usual_detection():
    write("mm.json", [{"text": "Why?", "answer": "So."}])
    registry(mm={"file_name": "mm.json", "columns": {"prompt": "text", "response": "answer"}})
    assert [detect(row.fields) for row in read_sources("mm")] == ["alpaca"]


def test_a_name_that_the_named_registry_has_not_is_no_hub_id(tmp_path):
    file = tmp_path / "sets.json"
    file.write_text(json.dumps({"medqa": {"file_name": "medqa.jsonl"}}))
    with pytest.raises(DataError, match=r"sets\.json: no data set 'medqb'; it has medqa\. Did you mean 'medqa'\?"):
        find_entry("medqb", file)
    assert find_entry("org/medqb", file) is None
    assert find_entry("medication-qa", file) is None
    file.write_text(json.dumps({"medqa": {"script_url": "medqa.py"}}))
    with pytest.raises(DataError, match=r"sets\.json: 'medqa'"):
        list(find_entry("medqa", file).rows())
