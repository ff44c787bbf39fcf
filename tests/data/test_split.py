"""Splitting by question: arithmetic that loses nothing and lets no question stand on both sides."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medtune.cli import main
from medtune.data.readers import read_data
from medtune.data.records import Conversation, Message
from medtune.data.split import normalise, parse_ratio, question_of, split_by_field, split_by_question
from medtune.errors import UsageError


def talk(question: str, number: int = 0) -> Conversation:
    return Conversation((Message("user", question), Message("assistant", f"answer {number}", True)), f"row {number}")


def groups(conversations) -> Counter[str]:
    return Counter(normalise(question_of(c)) for c in conversations)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "A?", "b", "c", "C!", "d", "e", "f", "?", "!", "g h", "g  h"]), max_size=60),
    st.floats(0, 1),
    st.integers(0, 1000),
)
def test_nothing_is_lost_or_doubled_no_question_straddles_and_the_share_is_met(questions, ratio, seed):
    rows = [talk(question, number) for number, question in enumerate(questions)]
    train, test, repeated = split_by_question(rows, ratio, seed)
    assert sorted([*train, *test], key=rows.index) == rows
    assert not set(groups(train)) & set(groups(test))
    assert repeated == len(rows) - len(groups(rows))
    largest = max(groups(rows).values(), default=0)
    assert abs(len(train) - len(rows) * ratio) <= largest + 0.5
    assert split_by_question(rows, ratio, seed) == (train, test, repeated)


def test_single_questions_meet_the_ratio_exactly_and_keep_their_order():
    rows = [talk(f"question {i}", i) for i in range(690)]
    train, test, repeated = split_by_question(rows, 0.7, seed=0)
    assert (len(train), len(test), repeated) == (483, 207, 0)
    assert train == [row for row in rows if row in train]


def test_another_seed_gives_another_split():
    rows = [talk(f"question {i}", i) for i in range(50)]
    assert split_by_question(rows, 0.5, 0).train != split_by_question(rows, 0.5, 1).train


def test_one_group_too_many_is_taken_where_it_is_nearer_than_one_too_few():
    rows = [talk("same", i) for i in range(8)] + [talk("other", i) for i in range(8)]
    train, test, _ = split_by_question(rows, 0.4, seed=0)
    assert (len(train), len(test)) == (8, 8)


def test_the_last_group_is_left_to_the_test_part():
    rows = [talk("same", i) for i in range(8)] + [talk("other"), talk("another")]
    for seed in range(5):
        train, test, _ = split_by_question(rows, 0.7, seed)
        assert (len(train), len(test)) == (2, 8)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is ASPIRIN?", "what is  aspirin"),
        ("drug-drug interaction", "drug drug interaction."),
        ("布洛芬，怎么吃？", "布洛芬怎么吃"),
        ("ＡＢＣ１２３", "abc123"),
        ("Straße\u200b", "STRASSE"),
        ('do i take a statin with food "?"', "Do I take a statin with food"),
    ],
)
def test_questions_that_differ_in_form_alone_are_one(one, other):
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(("one", "other"), [("10.5 mg", "105 mg"), ("a+b", "ab"), ("?", "!"), ("5 mg", "5 g")])
def test_questions_that_differ_in_meaning_stay_apart(one, other):
    assert normalise(one) != normalise(other)


def test_texts_without_a_question_are_told_apart_by_their_text():
    rows = [Conversation((Message("assistant", text, True),)) for text in ("one", "two", "one")]
    assert split_by_question(rows, 0.5, 0).repeated == 1


@pytest.mark.parametrize(("text", "share"), [("7:3", 0.7), ("0.7", 0.7), (" 9 : 1 ", 0.9), ("70:30", 0.7)])
def test_a_ratio_is_two_parts_or_a_share(text, share):
    assert parse_ratio(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "7", "1", "0", "7:0", "0:3", "7:3:1", "-7:3", "seven:three", "nan"])
def test_another_ratio_is_a_usage_error(text):
    with pytest.raises(UsageError, match="neither two numbers"):
        parse_ratio(text)


def test_a_share_outside_zero_to_one_is_a_usage_error():
    with pytest.raises(UsageError, match=r"between 0 and 1, got 1\.5"):
        split_by_question([talk("q")], 1.5, 0)


def test_the_tutorial_data_has_43_repeated_questions_and_39_by_exact_text(shared):
    path = shared / "data" / "internlm-tutorial-medqa2019" / "MedQA2019.xlsx"
    rows = [talk(row.fields["input"]) for row in read_data(path, columns={"input": "Question"})]
    train, test, repeated = split_by_question(rows, 0.7, seed=0)
    assert (len(train), len(test), repeated) == (483, 207, 43)
    assert len(rows) - len({question_of(row) for row in rows}) == 39


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=1, max_size=60),
    st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
    st.integers(0, 3),
)
def test_a_group_never_straddles_and_each_stratum_keeps_the_ratio(rows, ratio, seed):
    groups = [f"patient {patient}" for patient, _ in rows]
    strata = [f"ward {ward}" for _, ward in rows]
    sides = split_by_field(groups, ratio, seed, strata)
    assert sides == split_by_field(groups, ratio, seed, strata)
    side_of = dict(zip(groups, sides, strict=True))
    assert all(side_of[group] == side for group, side in zip(groups, sides, strict=True))
    first = dict(reversed(list(zip(groups, strata, strict=True))))
    for stratum in set(first.values()):
        inside = [side for group, side in zip(groups, sides, strict=True) if first[group] == stratum]
        largest = max(sum(g == group for g in groups) for group in first if first[group] == stratum)
        assert abs(sum(inside) - ratio * len(inside)) <= largest


def test_without_strata_a_split_by_field_is_that_of_the_whole():
    groups = [str(i // 3) for i in range(60)]
    assert sum(split_by_field(groups, 0.5, 0)) == 30
    assert split_by_field(groups, 0.5, 0) != split_by_field(groups, 0.5, 1)


def test_the_command_keeps_a_patient_together_and_the_wards_alike(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"question": f"Ask {i}?", "answer": "So.", "patient": str(i // 2), "ward": "ab"[i // 2 % 2]} for i in range(40)
    ]
    Path("visits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    words = ["data", "split", "visits.jsonl", "--ratio", "0.5", "--group-by", "patient"]
    assert main([*words, "--stratify-by", "ward"]) == 0
    assert "rows that share a patient with another: 20 surplus rows" in capsys.readouterr().out
    asked = [
        row["conversation"][0]["input"] for row in map(json.loads, Path("visits-train.jsonl").read_text().splitlines())
    ]
    chosen = [row for row in rows if row["question"] in asked]
    assert len(chosen) == 20
    assert Counter(row["ward"] for row in chosen) == {"a": 10, "b": 10}
    assert set(Counter(row["patient"] for row in chosen).values()) == {2}
    assert main([*words, "-f", "--stratify-by", "wrad"]) == 2
    assert "visits.jsonl:1: no value in the field 'wrad'" in capsys.readouterr().err
