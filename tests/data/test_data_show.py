"""`medtune data show`: one row through map, template, tokens, mask and overflow policy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from medtune import cli
from medtune.data.map_fns import NUM_HEAD_ROWS

QWEN3 = Path(__file__).parent / "chat_templates" / "qwen3.jinja"
ROWS = [
    {"instruction": "Fever?", "input": "", "output": "Drink."},
    {"conversations": [{"from": "human", "value": "咳嗽"}, {"from": "gpt", "value": "多喝水"},
                       {"from": "human", "value": "and?"}, {"from": "gpt", "value": "Rest. \x1b[31m"}]},
]  # fmt: skip


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8")
    return file


def show(capsys, *words):
    code = cli.main(["data", "show", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_row_is_shown_with_its_trained_parts_between_marks(data, capsys):
    code, out, _ = show(capsys, data)
    assert code == 0
    assert out == (
        "row       rows.jsonl:1\n"
        "fields    instruction (str), input (str), output (str)\n"
        "format    alpaca\n"
        "roles     user, assistant* (* trained)\n"
        "template  the tokenizer's own chat template\n"
        f"tokens    {len_of(out)} (4 trained)\n"
        f"fate      kept whole; {len_of(out)} tokens of a pack of 2048\n"
        "\n#### trained tokens between [[ ]]\n"
        "<|im_start|>user\nFever?<|im_end|>\n<|im_start|>assistant\n[[Drink.<|im_end|>]]\n\n"
    )


def len_of(out):
    return int(out.split("tokens    ")[1].split(" ")[0])


def test_another_row_with_the_last_answer_or_all_text_trained(data, capsys):
    _, last, _ = show(capsys, data, "--row", 2, "--train-on", "last")
    assert "roles     user, assistant, user, assistant* (* trained)" in last
    assert "多喝水<|im_end|>" in last and "[[多喝水" not in last and "[[Rest. \\x1b[31m<|im_end|>]]" in last
    _, every, _ = show(capsys, data, "--row", 2, "--train-on", "all")
    assert "user\n[[咳嗽]]<|im_end|>" in every and "[[多喝水<|im_end|>]]" in every and "[[and?]]" in every


@pytest.mark.parametrize(
    ("overflow", "fate"),
    [
        ("drop", "left out 1: longer than max_length"),
        ("truncate", "1 sample; cut off at 16 tokens"),
        ("split", "2 samples; split at every 16 tokens"),
        ("error", "stops the run: rows.jsonl:1: 19 tokens"),
    ],
)
def test_what_becomes_of_a_row_that_is_too_long(data, capsys, overflow, fate):
    code, out, _ = show(capsys, data, "--max-length", 16, "--overflow", overflow)
    assert code == 0 and f"\nfate      {fate}" in out
    assert "[[Drink.<|im_end|>]]" in out  # shown whole all the same


def test_every_token_is_listed_with_its_id_and_whether_it_is_trained(data, capsys):
    _, out, _ = show(capsys, data, "--ids")
    lines = [line for line in out.splitlines() if line[:6].strip().isdigit()]
    assert len(lines) == len_of(out)
    assert [line.split()[2] == "train" for line in lines].count(True) == 4
    assert lines[0].split()[:2] == ["0", "1"] and lines[0].endswith("'<|im_start|>'")


def test_a_template_that_rewrites_turns_shows_each_row_it_makes(data, capsys, tmp_path, tiny_model_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model_path / name, tmp_path)
    shutil.copy(QWEN3, tmp_path / "chat_template.jinja")
    _, out, _ = show(capsys, data, "--row", 2, "--tokenizer", tmp_path)
    assert "#### row 1 of 2" in out and "#### row 2 of 2" in out
    assert "[[<think>\n\n</think>\n\n多喝水<|im_end|>]]" in out
    assert "assistant\n多喝水<|im_end|>" in out.split("#### row 2")[1]


def test_json_holds_fields_messages_ids_and_mask(data, capsys, tiny_tokenizer):
    _, out, _ = show(capsys, data, "--json", "--template", "vicuna")
    told = json.loads(out)
    assert told["fields"] == ROWS[0] and told["origin"] == "rows.jsonl:1" and told["format"] == "alpaca"
    assert [message["role"] for message in told["messages"]] == ["user", "assistant"]
    (row,) = told["rows"]
    trained = [i for i, on in zip(row["input_ids"], row["trained"], strict=True) if on]
    assert tiny_tokenizer.decode(trained) == "Drink.<|im_end|>"
    assert tiny_tokenizer.decode(row["input_ids"]) == row["text"] == "USER: Fever? ASSISTANT:Drink.<|im_end|>\n"


def test_a_config_says_how_the_row_is_trained_on(data, capsys, tmp_path):
    config = tmp_path / "mine.py"
    config.write_text(
        f"_base_ = 'sft'\ndata_path = {str(data)!r}\nprompt_template = 'llama3_chat'\nSYSTEM = 'Be kind.'\n"
        "max_length = 64\n",
        encoding="utf-8",
    )
    code, out, err = show(capsys, "--config", config)
    assert code == 0, err
    assert "roles     system, user, assistant* (* trained)" in out and "template  llama3_chat" in out
    assert "pack of 64" in out or "left out 1: longer" in out
    assert "Be kind." in out
    code, out, _ = show(capsys, data, "--config", config, "--system", "", "--template", "plain", "--row", 2)
    assert "system" not in out and "template  plain" in out


def test_the_row_is_found_far_down_the_file(capsys, tmp_path):
    file = tmp_path / "many.jsonl"
    count = NUM_HEAD_ROWS + 7
    file.write_text("".join(f'{{"instruction": "q{i}", "output": "a{i}"}}\n' for i in range(1, count + 1)))
    _, out, _ = show(capsys, file, "--row", count)
    assert f"many.jsonl:{count}\n" in out and f"[[a{count}<|im_end|>]]" in out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--row", "9"], "row 9: the data has rows 1 to 2"),
        (["--row", "0"], "row 0: the data has rows 1 to 2"),
        (["--max-length", "1"], "max_length=1"),
        (["--template", "qwn_chat"], "Did you mean 'qwen_chat'"),
    ],
)
def test_what_cannot_be_shown_is_one_line(data, capsys, words, line):
    code, _, err = show(capsys, data, *words)
    assert code == 2 and line in err and err.count("\n") == 1


def test_a_row_with_an_empty_answer_is_shown_as_left_out(capsys, tmp_path):
    file = tmp_path / "empty.jsonl"
    file.write_text('{"instruction": "q", "output": "a"}\n{"instruction": "q", "output": " "}\n')
    code, out, _ = show(capsys, file, "--row", 2)
    assert code == 0 and "fate      left out: empty answer" in out


def test_without_a_file_or_a_config_it_says_what_it_wants(capsys):
    code, _, err = show(capsys)
    assert code == 2 and "name a data file, or a config" in err
