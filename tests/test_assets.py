"""The files a first run works on: the embedded base model and the medication spreadsheet."""

from __future__ import annotations

import json
import re

import pytest
from conftest import ASSETS

HEADER = ("question", "drug", "type", "answer", "language")
CJK = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    from openpyxl import load_workbook

    sheet = load_workbook(ASSETS / "medication_qa.xlsx", read_only=True)["MedicationQA"]
    header, *values = sheet.iter_rows(values_only=True)
    assert header == HEADER
    return [dict(zip(HEADER, row, strict=True)) for row in values]


def test_the_spreadsheet_has_36_rows_in_each_language(rows):
    assert [r["language"] for r in rows].count("en") == 36
    assert [r["language"] for r in rows].count("zh") == 36
    assert len(rows) == 72


def test_no_cell_is_empty_padded_or_a_formula(rows):
    for row in rows:
        for value in row.values():
            assert isinstance(value, str) and value == value.strip() and value
            assert value[0] not in "=+-@"


def test_questions_and_answers_are_written_in_their_language(rows):
    for row in rows:
        assert bool(CJK.search(row["question"])) == (row["language"] == "zh")
        assert bool(CJK.search(row["answer"])) == (row["language"] == "zh")


def test_no_question_and_no_answer_stands_twice(rows):
    assert len({r["question"] for r in rows}) == len(rows)
    assert len({r["answer"] for r in rows}) == len(rows)


def test_answers_have_one_to_four_sentences(rows):
    for row in rows:
        ends = re.findall(r"。|[.](?=\s|$)", row["answer"])
        assert 1 <= len(ends) <= 4, row["question"]


def test_the_medicines_vary(rows):
    for language in ("en", "zh"):
        assert len({r["drug"] for r in rows if r["language"] == language}) >= 32


def test_the_embedded_model_has_the_parameters_its_card_states(tiny_model_path):
    from safetensors import safe_open

    with safe_open(tiny_model_path / "model.safetensors", framework="np") as file:
        count = 0
        for name in file.keys():  # noqa: SIM118 - a safe_open handle is no mapping
            size = 1
            for length in file.get_slice(name).get_shape():
                size *= length
            count += size
    card = (tiny_model_path / "README.md").read_text(encoding="utf-8")
    assert f"{count / 1e6:.1f} M" in card


def test_the_card_names_the_special_tokens_by_their_ids(tiny_model_path):
    card = (tiny_model_path / "README.md").read_text(encoding="utf-8").replace("\\|", "|")
    tokens = json.loads((tiny_model_path / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    assert {t["content"] for t in tokens} == {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"}
    for token in tokens:
        assert f"`{token['content']}` {token['id']}" in card


def json_lines(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (ASSETS / name).read_text(encoding="utf-8").splitlines()]


def test_the_pairs_are_16_in_each_language_and_their_answers_differ():
    rows = json_lines("medication_pairs.jsonl")
    assert [r["language"] for r in rows] == ["en"] * 16 + ["zh"] * 16
    assert all(set(r) == {"prompt", "chosen", "rejected", "language"} for r in rows)
    texts = [r[name] for r in rows for name in ("prompt", "chosen", "rejected")]
    assert len(set(texts)) == len(texts) and all(text == text.strip() and text for text in texts)
    assert all(bool(CJK.search(text)) == (i >= 48) for i, text in enumerate(texts))


def test_the_labelled_answers_are_those_of_the_pairs_half_of_them_good():
    pairs = {r["prompt"]: r for r in json_lines("medication_pairs.jsonl")}
    rows = json_lines("medication_labels.jsonl")
    assert len(rows) == 40 and sum(r["label"] for r in rows) == 20
    assert all(r["completion"] == pairs[r["prompt"]]["chosen" if r["label"] else "rejected"] for r in rows)
