"""Detection: each row by the format that fits it, whatever the rows around it are."""

from __future__ import annotations

import pickle

import pytest

from medtune.data.detection import DETECTED
from medtune.data.map_fns import (
    DATASET_FORMATS,
    FORMATS,
    apply_map_fn,
    detect,
    format_name,
    named_map_fn,
    resolve_map_fn,
)
from medtune.data.records import Message, Row
from medtune.data.structured import map_rows, mapped_records, read_conversations
from medtune.errors import DataError

ALPACA = {"instruction": "q", "input": "", "output": "a"}
SHORT = {"instruct": "q", "output": "a"}
PAIR = {"prompt": "q", "chosen": "a", "rejected": "b"}
MESSAGES = (Message("user", "q"), Message("assistant", "a", True))


def test_rows_of_two_schemas_are_read_by_two_formats_and_can_be_counted():
    rows = [Row(fields, f"a:{i}") for i, fields in enumerate((ALPACA, SHORT, {"question": "q", "answer": "a"}, ALPACA))]
    map_fn = resolve_map_fn(None, *rows)
    assert [apply_map_fn(map_fn, row).messages for row in rows] == [MESSAGES] * 4
    assert [format_name(map_fn, row) for row in rows] == ["alpaca", "alpaca", "question_answer", "alpaca"]
    assert format_name(DATASET_FORMATS["alpaca"], rows[0]) == "alpaca"


def test_a_named_format_reads_every_row_by_itself():
    rows = [Row(ALPACA, "a:0"), Row(SHORT, "a:1")]
    with pytest.raises(DataError, match="a:1: alpaca_map_fn wants 'instruction', 'output'"):
        map_rows(rows, "alpaca")


def test_a_later_row_that_fits_nothing_is_named():
    with pytest.raises(DataError, match=r"a:1: no known format fits a row with the keys 'ward', 'bed'"):
        map_rows([Row(ALPACA, "a:0"), Row({"ward": 1, "bed": 2}, "a:1")])


def test_what_detection_found_can_be_sent_to_another_process_and_has_a_name():
    map_fn = pickle.loads(pickle.dumps(resolve_map_fn(None, Row({"Instruct": "q", "Output": "a"}, "a:0"))))
    assert map_fn.__name__ == "alpaca_map_fn"
    assert apply_map_fn(map_fn, Row({"Instruct": "q", "Output": "a"}, "a:1")).messages == MESSAGES


def test_every_detected_format_exists_and_no_two_names_are_tried_twice():
    assert set(DETECTED) <= set(FORMATS)
    assert len(set(DETECTED)) == len(DETECTED)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("user_bot", {"instruction": " <user>: q <bot>: a <user>: q", "input": "", "output": "a"}),
        ("alpaca", {"instruction": "<users> do", "input": "", "output": "a"}),
        ("alpaca_lists", {"id": "", "instruction": ["q"], "input": "", "output": ["a"]}),
        ("oasst1_pair", {"input": "### Human: q ### Assistant:", "output": "a", "text": "### Human: q ### Assistant:"}),
        ("default", {"input": "### Humans: q", "output": "a"}),
        ("content", {"content": "text", "title": "t"}),
        ("pretrain", {"text": "text", "content": "more"}),
        ("ceval", {"question": "q", "A": "1", "B": "2", "C": "3", "D": "4", "answer": "A"}),
        ("question_answer", {"question": "q", "answer": "a", "exp": "e"}),
        ("dialogue", [{"role": "client", "content": "q"}, {"role": "counselor", "content": "a"}]),
        ("left_out", {"left_out": "both answers have the same score"}),
        ("alpaca", {"instruction": "q", "output": "a", "left_out": "a column of the ward"}),
        ("dialogue", {"messages": [{"role": "client", "content": "q"}, {"role": "client", "content": "r"}]}),
        ("dialogue", {"example-id": "7", "dialogue-content": [{"speaker": "患者", "sentence": "q"}]}),
        ("conversation", {"conversation": []}),
        ("conversation", {"conversation": [{"input": "q", "output": "a"}], "messages": None}),
    ],
)
def test_the_more_telling_shape_is_found(name, fields):
    assert detect(fields) == name


@pytest.mark.parametrize(
    "fields",
    [
        {"role": "client", "content": "a part of a dialogue"},
        {"text": "q", "answer": "a"},
        {"A": "1", "B": "2", "C": "3", "D": "4", "E": "5", "F": "a sentence"},
        {"question": "q", "options": "A or B", "answer_idx": "A"},
        {"conversations": 7},
        [],
        ["a", "b"],
        "text",
        None,
    ],
)
def test_what_fits_nothing_is_refused(fields):
    with pytest.raises(DataError, match="no known format fits"):
        detect(fields)


def test_a_registry_of_data_sets_is_told_from_data():
    for fields in ({"file_name": "a.json", "columns": {}}, {"hf_hub_url": "a/b"}, {"script_url": "c"}):
        with pytest.raises(DataError, match="a registry of data sets: pass it as dataset_info"):
            detect(fields)


def test_a_dialogue_joins_what_a_speaker_says_and_leaves_out_messages_without_text():
    said = [
        ("医生", "你好"),
        ("患者", "你好"),
        ("患者", "发热"),
        ("医生", ""),
        ("患者", "三天"),
        ("医生", "多喝水"),
        ("患者", "谢谢"),
    ]
    row = Row({"dialogue-content": [{"speaker": who, "sentence": text, "label": "O"} for who, text in said]}, "a:0")
    assert apply_map_fn(resolve_map_fn(None, row), row).messages == (
        Message("assistant", "你好", True),
        Message("user", "你好\n发热\n三天"),
        Message("assistant", "多喝水", True),
        Message("user", "谢谢"),
    )


def test_tagged_turns_in_one_text_become_messages():
    row = Row({"instruction": " <user>: q1 <bot>: a1 <user>：q2", "output": "a2", "input": ""}, "a:0")
    assert [m.content for m in apply_map_fn(resolve_map_fn(None, row), row).messages] == ["q1", "a1", "q2", "a2"]
    row = Row({"input": "### Human: q1 ### Assistant: a1 ### Human: q2 ### Assistant:", "output": "a2"}, "a:0")
    assert [m.content for m in apply_map_fn(resolve_map_fn(None, row), row).messages] == ["q1", "a1", "q2", "a2"]


def test_xtuners_key_without_its_t_is_taken_and_pictures_are_refused():
    assert named_map_fn("crime_kg_assitan") is DATASET_FORMATS["crime_kg_assitant"]
    with pytest.raises(DataError, match="dataset_map_fn 'llava' is for pictures"):
        named_map_fn("llava")


def test_a_pair_among_conversations_is_refused_where_conversations_are_wanted():
    with pytest.raises(DataError, match=r"a:1: two answers to one prompt.*dataset_map_fn='chosen'"):
        map_rows([Row(ALPACA, "a:0"), Row(PAIR, "a:1")])


def test_a_file_of_pairs_is_refused_or_read_by_its_better_answers(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    with pytest.raises(DataError, match=r"pairs\.jsonl:1: two answers to one prompt"):
        read_conversations(path)
    assert read_conversations(path, map_fn="chosen", system="s")[0].messages == (Message("system", "s"), *MESSAGES)


def test_skipped_rows_are_counted_where_somebody_counts_and_a_fault_elsewhere():
    rows = [
        Row(
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "label": label},
            "a:0",
        )
        for label in (True, False, False)
    ]
    from collections import Counter

    skipped: Counter[str] = Counter()
    _, records = mapped_records(rows, "chosen", skipped=skipped)
    assert len(list(records)) == 1
    assert skipped == {"the answer is labelled as a bad one": 2}
    with pytest.raises(DataError, match="labelled as a bad one"):
        map_rows(rows, "chosen")


def test_a_system_text_goes_to_the_prompt_of_a_pair_that_has_none():
    _, records = mapped_records([Row(PAIR, "a:0"), Row({**PAIR, "system": "own"}, "a:1")], system="s")
    assert [record.prompt[0].content for record in records] == ["s", "own"]
