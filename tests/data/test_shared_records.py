"""Every record shape on the real files beside the checkout, against a table checked by hand.

The counts were taken from the files by `json`, `csv` and `grep`, not by medtune.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from medtune.data.map_fns import NUM_HEAD_ROWS, apply_map_fn, format_name, resolve_map_fn
from medtune.data.readers import read_data
from medtune.data.records import Conversation, Preference, Row, SkippedRow
from medtune.data.structured import has_empty_answer
from medtune.data.words import language
from medtune.errors import DataError


class Told(NamedTuple):
    """What the table says of a file."""

    format: str
    kind: str
    num_records: int
    language: str
    num_empty: int = 0
    left_out: tuple[tuple[str, int], ...] = ()
    """Rows that make no record: ties, and defects by the end of their line."""


TABLE = {
    "caregpt/Hospital Guide/导诊指导.json": Told("content", "text", 60, "zh"),
    "caregpt/drug.json": Told("pretrain", "text", 2441, "zh"),
    "caregpt/openai_messages_output.jsonl": Told("openai", "conversation", 100, "zh"),
    "caregpt/self_cognition.json": Told("alpaca", "conversation", 80, "zh"),
    "ceval-medical/dev/physician_dev.csv": Told("ceval", "conversation", 5, "zh"),
    "ceval-medical/test/physician_test.csv": Told("ceval", "conversation", 443, "zh", num_empty=443),
    "ceval-medical/val/physician_val.csv": Told("ceval", "conversation", 49, "zh"),
    "chineseblue/CMDD-dev-test.tar.gz": Told("dialogue", "conversation", 826, "zh", num_empty=142),
    "cmb/CMB-test-qa.json": Told("cmb_clin", "conversation", 74, "zh"),
    "cmmlu-medical/test/anatomy.csv": Told("ceval", "conversation", 148, "zh"),
    "huatuo-llama/liver_cancer.json": Told("user_bot", "conversation", 1000, "zh"),
    "huatuo-llama/llama_data.json": Told("alpaca", "conversation", 8658, "zh"),
    "internlm-tutorial-medqa2019/MedQA2019-structured.jsonl": Told("conversation", "conversation", 690, "en"),
    "internlm-tutorial-medqa2019/MedQA2019.xlsx": Told("question_answer", "conversation", 690, "en"),
    "llama-factory/alpaca_zh_demo.json": Told("alpaca", "conversation", 1000, "zh"),
    "llama-factory/dpo_en_demo.json": Told("sharegpt_preference", "pair", 300, "en"),
    "llama-factory/identity.json": Told("alpaca", "conversation", 91, "zh"),
    "llama-factory/kto_en_demo.json": Told("kto", "labelled", 300, "en"),
    "llama-factory/oaast_rm_zh.json": Told("ranked", "pair", 775, "zh"),
    "llama-factory/oaast_sft_zh.json": Told("alpaca", "conversation", 766, "zh"),
    "llama-factory/wiki_demo.txt": Told("pretrain", "text", 30, "en"),
    "medalpaca/medical_meadow_small.json": Told("alpaca", "conversation", 5942, "en"),
    "medical-llm-rl/medical_dpo.json": Told("alpaca_preference", "pair", 800, "en"),
    "medicalgpt/dpo_zh_500.jsonl": Told("sharegpt_preference", "pair", 500, "zh"),
    "medicalgpt/fever.txt": Told("pretrain", "text", 985, "zh"),
    "medicalgpt/glaive_toolcall_zh_demo.jsonl": Told("sharegpt", "conversation", 300, "zh"),
    "medicalgpt/medical_corpus.txt": Told("question_answer", "conversation", 87, "zh"),
    "medicalgpt/medical_sft_1K_format.jsonl": Told("sharegpt", "conversation", 1000, "zh"),
    "medicalgpt/reward_test.json": Told("question_preference", "pair", 100, "zh"),
    "medicalgpt/sample.jsonl": Told("question_answer", "conversation", 32, "zh"),
    "medicalgpt/sharegpt_zh_1K_format.jsonl": Told(
        "sharegpt", "conversation", 999, "zh", 6, (("the conversation has no assistant message to learn from.", 1),)
    ),
    "medicalgpt/toolcall_dpo_zh_demo.jsonl": Told("sharegpt_preference", "pair", 11, "zh"),
    "medmcqa/dev.json": Told("medmcqa", "conversation", 4183, "en"),
    "mmlu-medical/data/test/anatomy_test.csv": Told("mmlu", "conversation", 135, "en"),
    "openassistant-qlora/oa_questions.jsonl": Told("oasst1_pair", "conversation", 300, "latin"),
    "pubmedqa/ori_pqal.json": Told("pubmedqa", "conversation", 1000, "en"),
    "pulse-eval/elo_outputs_MedicineQA_1207.jsonl.gz": Told(
        "scored_pair", "pair", 543, "zh", 1, (("both answers have the same score.", 117),)
    ),
    "smile/smile-500-dialogues.tar.gz": Told("dialogue", "conversation", 500, "zh", num_empty=60),
    "toyhom/样例_内科5000-6000.csv": Told("question_answer", "conversation", 7644, "zh"),
    "zhongjing/CMtMedQA_test.json": Told("alpaca", "conversation", 1144, "zh"),
    "zhongjing/huatuo26M_test.json": Told("alpaca_lists", "conversation", 6000, "zh"),
}


def rows_of_file(path: Path) -> list[Row]:
    if "CMDD" in path.name:  # two parts in one archive
        return [row for split in ("validation", "test") for row in read_data(path, split=split)]
    return list(read_data(path, encoding="gb18030" if "样例" in path.name else None))


NUM_READ = 200
"""Records of a file whose language is looked at."""


def kind(record: Conversation | Preference) -> str:
    if isinstance(record, Preference):
        return "pair"
    if record.label is not None:
        return "labelled"
    return "text" if len(record.messages) == 1 else "conversation"


@pytest.mark.slow
@pytest.mark.parametrize("file", TABLE)
def test_a_real_file_is_read_as_the_table_says(shared, file):
    rows = rows_of_file(shared / "data" / file)
    map_fn = resolve_map_fn(None, *rows[:NUM_HEAD_ROWS])
    formats, kinds, languages, left_out = Counter(), Counter(), Counter(), Counter()
    num_empty = 0
    for row in rows:
        formats[format_name(map_fn, row)] += 1
        try:
            record = apply_map_fn(map_fn, row)
        except SkippedRow as skipped:
            left_out[f"{skipped.reason}."] += 1
            continue
        except DataError as fault:
            left_out[str(fault).removeprefix(f"{row.origin}: ")] += 1
            continue
        kinds[kind(record)] += 1
        num_empty += has_empty_answer(record)
        conversation = record.conversations()[0] if isinstance(record, Preference) else record
        if kinds.total() <= NUM_READ:
            languages[language("\n".join(message.content for message in conversation.messages))] += 1
    (most,) = languages.most_common(1)
    (format_found,), (kind_found,) = formats, kinds
    found = Told(format_found, kind_found, kinds.total(), most[0], num_empty, tuple(sorted(left_out.items())))
    assert found == TABLE[file]


def test_the_tool_calls_of_glaive_are_all_read(shared):
    rows = rows_of_file(shared / "data" / "medicalgpt" / "glaive_toolcall_zh_demo.jsonl")
    map_fn = resolve_map_fn(None, *rows)
    records = [apply_map_fn(map_fn, row) for row in rows]
    messages = [message for record in records for message in record.messages]
    assert sum(len(message.tool_calls) for message in messages) == 216
    assert sum(message.role == "tool" for message in messages) == 218
    assert sum(bool(record.tools) for record in records) == 200


def test_the_registries_and_the_bare_labels_are_refused_by_what_they_are(shared):
    for file in ("caregpt/dataset_info.json", "llama-factory/dataset_info.json"):
        row = Row(json.loads((shared / "data" / file).read_text(encoding="utf-8")), file)
        with pytest.raises(DataError, match="registry of data sets"):
            resolve_map_fn(None, Row(next(iter(row.fields.values())), file))
    labels = json.loads((shared / "data" / "pubmedqa" / "test_ground_truth.json").read_text(encoding="utf-8"))
    with pytest.raises(DataError, match="no known format fits a row"):
        resolve_map_fn(None, Row(labels, "test_ground_truth.json[0]"))


def test_the_columns_of_the_drug_table_must_be_named(shared):
    path = shared / "data" / "qizhengpt" / "药品适应症评测数据集.csv"
    with pytest.raises(DataError, match="Name its columns, data_columns=dict"):
        resolve_map_fn(None, *read_data(path))
    rows = list(read_data(path, columns={"input": "instruction", "output": "药品适应症"}))
    assert len(rows) == 94
    assert {format_name(resolve_map_fn(None, *rows), row) for row in rows} == {"default"}
