"""Every real file below ../shared/data: the rows it has, or the line it is refused by, against a table checked by hand.

The table's numbers are those of ../shared/data/README.md, counted there by another program; what differs says why.
The fields are those of the first row. Records and dropped rows are another test's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.data.readers import read_data
from medtune.errors import DataError

EXAM, EXAM_ANSWERED = "id question A B C D", "id question A B C D answer"
CMMLU = "column A|Question|A|B|C|D|Answer"  # the index column has no title
MMLU = "A B C D E F"  # no header: question, four choices, answer
ALPACA = "instruction input output"
REGISTRY = "a registry of {} data sets, not data. Name one of them"

# file -> number of rows, origin of the first row within the file, fields of the first row
FILES: dict[str, tuple[int, str, str]] = {
    "caregpt/Hospital Guide/prompt.txt": (26, ":1", "text"),
    "caregpt/Hospital Guide/导诊指导.json": (60, "[0]", "content"),
    "caregpt/Hospital Guide/导诊指导.md": (60, ":4", "text"),
    "caregpt/Hospital Guide/导诊目录.txt": (10, ":1", "text"),
    "caregpt/drug.json": (2441, "[0]", "text"),
    "caregpt/openai_messages_output.jsonl": (100, ":1", "messages"),
    "caregpt/self_cognition.json": (80, "[0]", ALPACA),
    "ceval-medical/dev/basic_medicine_dev.csv": (5, ":2", f"{EXAM_ANSWERED} explanation"),
    "ceval-medical/dev/clinical_medicine_dev.csv": (5, ":2", f"{EXAM_ANSWERED} explanation"),
    "ceval-medical/dev/physician_dev.csv": (5, ":2", f"{EXAM_ANSWERED} explanation"),
    "ceval-medical/test/basic_medicine_test.csv": (175, ":2", EXAM),
    "ceval-medical/test/clinical_medicine_test.csv": (200, ":2", EXAM),
    "ceval-medical/test/physician_test.csv": (443, ":2", EXAM),
    "ceval-medical/val/basic_medicine_val.csv": (19, ":2", EXAM_ANSWERED),
    "ceval-medical/val/clinical_medicine_val.csv": (22, ":2", EXAM_ANSWERED),
    "ceval-medical/val/physician_val.csv": (49, ":2", EXAM_ANSWERED),
    "chineseblue/train.txt": (1683, ":1", "A B"),  # a table without a header under the name of a text
    "cmb/CMB-test-qa.json": (74, "[0]", "id title description QA_pairs"),
    "huatuo-llama/liver_cancer.json": (1000, "[0]", ALPACA),
    "huatuo-llama/llama_data.json": (8658, ":1", ALPACA),
    "internlm-tutorial-medqa2019/MedQA2019-structured-test.jsonl": (208, "[0]", "conversation"),
    "internlm-tutorial-medqa2019/MedQA2019-structured-train.jsonl": (482, "[0]", "conversation"),
    "internlm-tutorial-medqa2019/MedQA2019-structured.jsonl": (690, "[0]", "conversation"),
    "internlm-tutorial-medqa2019/MedQA2019.xlsx": (
        690,
        "!DrugQA!A2",
        "Question|Focus (Drug)|Question Type|Answer|Section Title|URL",
    ),
    "llama-factory/alpaca_zh_demo.json": (1000, "[0]", ALPACA),
    "llama-factory/dpo_en_demo.json": (300, "[0]", "conversations chosen rejected"),
    "llama-factory/identity.json": (91, "[0]", ALPACA),
    "llama-factory/kto_en_demo.json": (300, "[0]", "messages label"),
    "llama-factory/oaast_rm_zh.json": (775, "[0]", f"{ALPACA} history"),
    "llama-factory/oaast_sft_zh.json": (766, "[0]", f"{ALPACA} history"),
    "llama-factory/wiki_demo.txt": (30, ":1", "text"),
    "medalpaca/medical_meadow_small.json": (5942, "[0]", ALPACA),
    "medical-llm-rl/medical_dpo.json": (800, "[0]", "instruction input chosen rejected"),
    "medicalgpt/dpo_zh_500.jsonl": (500, ":1", "conversations chosen rejected"),
    "medicalgpt/en_article_tail500.txt": (426, ":1", "text"),
    "medicalgpt/fever.txt": (985, ":1", "text"),
    "medicalgpt/glaive_toolcall_zh_demo.jsonl": (300, ":1", "conversations tools"),
    "medicalgpt/medical_corpus.txt": (87, ":1", "问 答"),
    "medicalgpt/medical_sft_1K_format.jsonl": (1000, ":1", "conversations"),
    "medicalgpt/reward_test.json": (100, ":1", "question response_chosen response_rejected"),
    "medicalgpt/sample.jsonl": (32, ":1", "question answer"),
    "medicalgpt/sharegpt_zh_1K_format.jsonl": (1000, ":1", "conversations"),
    "medicalgpt/toolcall_dpo_zh_demo.jsonl": (11, ":1", "conversations tools chosen rejected"),
    "medmcqa/dev.json": (
        4183,
        ":1",
        "question exp cop opa opb opc opd subject_name topic_name id choice_type",
    ),
    # README: 46,882 pairs. Four more files spell <qaPairs><pair>, with 16 pairs. No answer in 31,034 of all.
    "medquad/medquad-xml-except-8_NHLBI.tar.gz": (
        46_882 + 16,
        "!10_MPlus_ADAM_QA/0000001.xml[0]",
        "question answer qtype focus source",
    ),
    "openassistant-qlora/oa_questions.jsonl": (
        300,
        ":1",
        "input output message_id parent_id rank lang prompt question_id category text",
    ),
    "openstax-nursing/modules-cnxml.tar.gz": (492, "!modules/m00001/index.cnxml", "text"),
    "pubmedqa/ori_pqal.json": (
        1000,
        "[0]",
        "QUESTION CONTEXTS LABELS MESHES YEAR reasoning_required_pred reasoning_free_pred final_decision LONG_ANSWER",
    ),
    "pubmedqa/test_ground_truth.json": (500, "[0]", "id value"),
    "pulse-eval/elo_outputs_MedicineQA_1207.jsonl.gz": (660, ":1", "input output"),
    "qizhengpt/药品适应症评测数据集.csv": (94, ":2", "药品 药品适应症 医学专家标注的适应病症 instruction"),
    "shennong/ShenNong-TCM-LLM - test examples.xls": (
        201,
        "!ChatMed-TCM 结果对比!A2",
        "问题|LlaMa原始|ShenNong-TCM-LLM",
    ),
    "smile/smile-500-dialogues.tar.gz": (500, "!data/0.json", "messages"),
    "tcm-ancient-books/000-神农本草经.txt": (3576, ":1", "text"),
    "tcm-ancient-books/457-伤寒论.txt": (1093, ":2", "text"),
    "toyhom/样例_内科5000-6000.csv": (7644, ":2", "department title ask answer"),
    "zhongjing/CMtMedQA_test.json": (1144, "[0]", "id cate1 cate2 instruction input output history"),
    "zhongjing/huatuo26M_test.json": (6000, "[0]", "id instruction input output"),
}
for subject, counts in {
    "anatomy": (5, 135, 14),
    "clinical_knowledge": (5, 265, 29),
    "college_biology": (5, 144, 16),
    "college_medicine": (5, 173, 22),
    "medical_genetics": (5, 100, 11),
    "nutrition": (5, 306, 33),
    "professional_medicine": (5, 272, 31),
    "virology": (5, 166, 18),
}.items():
    for part, count in zip(("dev", "test", "val"), counts, strict=True):
        FILES[f"mmlu-medical/data/{part}/{subject}_{part}.csv"] = (count, ":1", MMLU)
for subject, count in {
    "anatomy": 148,
    "clinical_knowledge": 237,
    "college_medical_statistics": 106,
    "college_medicine": 273,
    "professional_medicine": 376,
    "traditional_chinese_medicine": 185,
}.items():
    FILES[f"cmmlu-medical/dev/{subject}.csv"] = (5, ":2", CMMLU)
    FILES[f"cmmlu-medical/test/{subject}.csv"] = (count, ":2", CMMLU)

# Registries name data sets and hold none; the README counts their entries. An archive with a dev and a test folder, 413
# dialogues each, says so: nothing tested is trained on.
REFUSED = {
    "caregpt/dataset_info.json": REGISTRY.format(36),
    "llama-factory/dataset_info.json": REGISTRY.format(104),
    "chineseblue/CMDD-dev-test.tar.gz": "no file of the split 'train'; it has test, validation",
}
# Read with an option: one document a file, as the README counts, and the parts of what is refused above.
WITH_OPTIONS = [
    ("craft/articles-txt.tar.gz", {"documents": "file"}, 97),
    ("craft/articles-txt.tar.gz", {}, 9771),  # one document a line
    ("chineseblue/CMDD-dev-test.tar.gz", {"split": "validation"}, 413),
    ("chineseblue/CMDD-dev-test.tar.gz", {"split": "test"}, 413),
]
LARGE = {"medquad/medquad-xml-except-8_NHLBI.tar.gz", "openstax-nursing/modules-cnxml.tar.gz"}


def test_the_table_names_every_file(shared):
    folder = shared / "data"
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    named = FILES.keys() | REFUSED.keys() | {name for name, _, _ in WITH_OPTIONS}
    assert there - {"README.md"} == named


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in sorted(FILES)]
)
def test_a_file_gives_every_row(shared, name):
    num_rows, place, fields = FILES[name]
    rows = list(read_data(shared / "data" / name))
    assert len(rows) == num_rows
    assert rows[0].origin == Path(name).name + place
    assert set(rows[0].fields) == set(fields.split("|" if "|" in fields else " "))
    assert all(isinstance(row.fields, dict) and row.fields for row in rows)
    assert len({row.origin for row in rows}) == num_rows


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_file_that_is_no_training_data_is_refused(shared, name):
    with pytest.raises(DataError) as fault:
        list(read_data(shared / "data" / name))
    assert REFUSED[name] in str(fault.value)
    assert str(fault.value).startswith(Path(name).name)


@pytest.mark.parametrize(("name", "options", "num_rows"), WITH_OPTIONS)
def test_an_option_gives_other_rows(shared, name, options, num_rows):
    assert sum(1 for _ in read_data(shared / "data" / name, **options)) == num_rows


def test_no_row_of_a_text_in_gb18030_is_garbled(shared):
    rows = list(read_data(shared / "data" / "toyhom" / "样例_内科5000-6000.csv"))
    assert {row.fields["department"][-1] for row in rows} == {"科"}
    assert not any("\ufffd" in text for row in rows for text in row.fields.values())


@pytest.mark.slow
def test_pairs_of_medquad_without_an_answer_stay_for_drop_empty_to_count(shared):
    rows = read_data(shared / "data" / "medquad" / "medquad-xml-except-8_NHLBI.tar.gz")
    assert sum(not row.fields["answer"] for row in rows) == 31_034
