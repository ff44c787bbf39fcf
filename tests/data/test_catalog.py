"""The catalogue: what is known of published data sets, and a name of it as data_path."""

from __future__ import annotations

import json

import pytest
from conftest import ROOT

from medtune.build import check
from medtune.cli import main
from medtune.config import data_configs, load
from medtune.data.catalog import STAGES, catalog, data_folder, located, matching, named
from medtune.data.detection import DETECTED
from medtune.data.hubs import HUB_FILE, HUB_ID
from medtune.data.map_fns import DATASET_FORMATS, apply_map_fn, resolve_map_fn
from medtune.data.readers import read_data
from medtune.errors import ConfigError, DataError

# The three lists of CareLlama's README, as ../shared/reference/mission.md has them -> their names here.
README = {
    "pre-training": ["pt_llm_pretrain_finetune", "pt_medical", "pt_zysj"],
    "fine-tuning": [
        "icliniq", "healthcaremagic", "shennong_tcm", "chatmed_consult", "toyhom", "cmedqa2", "huatuo_26m", "webmedqa",
        "pubmedqa", "cmcqa", "qizhen", "llm_pretrain_finetune_sft", "medical_dialogue_system", "imcs_v2",
        "chip_mdcfnpc", "meddg", "huatuogpt_sft_v1", "medicalgpt_finetune", "medical", "medalpaca", "cmtmedqa",
        "medical_dialog", "huatuo_encyclopedia", "billgpt", "med_chatglm", "cmb", "genmedgpt",
    ],
    "reward": ["rm_medicalgpt", "rm_zhongjing", "rm_comparison_zh", "rm_comparison_en"],
}  # fmt: skip


@pytest.fixture
def run(capsys):
    """Run a command line in this process; returns exit code, standard output and standard error."""

    def run_words(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        return code, *capsys.readouterr()

    return run_words


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty $MEDTUNE_DATA."""
    monkeypatch.setenv("MEDTUNE_DATA", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("stage", STAGES)
def test_the_lists_of_the_seed_are_in_the_catalogue(stage):
    assert [name for name in README[stage] if named(name).stage != stage] == []


@pytest.mark.parametrize("name", catalog())
def test_an_entry_is_whole_and_its_place_is_one(name):
    entry = named(name)
    assert entry.place.startswith("https://") or HUB_ID.fullmatch(entry.place) or HUB_FILE.fullmatch(entry.place)
    assert entry.address.startswith("https://") and " " not in entry.address
    assert entry.map_fn is None or entry.map_fn in DATASET_FORMATS
    assert entry.language in ("zh", "en", "zh/en") and entry.licence and entry.shape
    assert entry.rows is None or entry.rows > 0
    how = entry.how_to_get()
    assert how.endswith(".") and "\n" not in how and (entry.on_hub or str(data_folder() / name) in how)


def test_what_a_config_trains_on_is_read_by_a_map_function():
    assert {name for name, entry in catalog().items() if entry.map_fn} == set(data_configs()) & set(catalog())


def test_a_name_is_a_place_on_a_hub_until_a_local_copy_stands_in_the_folder(folder):
    assert located("catalog:cmtmedqa") == ("Suprit/CMtMedQA", None)
    assert located("catalog:medical")[0] == "hf://datasets/shibing624/medical/finetune/train_zh_0.json"
    copy = folder / "cmtmedqa.jsonl"
    copy.write_text('{"instruction": "Q", "input": "", "output": "A"}\n')
    assert located("catalog:cmtmedqa")[0] == copy
    (row,) = read_data("catalog:cmtmedqa")
    assert (row.fields["output"], row.origin) == ("A", "cmtmedqa.jsonl:1")
    (folder / "medical").mkdir()
    (folder / "medical" / "part.jsonl").write_text('{"instruction": "Q", "input": "", "output": "B"}\n')
    assert [row.fields["output"] for row in read_data("catalog:medical")] == ["B"]


def test_without_the_variable_copies_lie_in_the_folder_data(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDTUNE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "toyhom.csv").write_text("department,title,ask,answer\nx,y,Q,A\n")
    (row,) = read_data("catalog:toyhom")
    assert row.fields == {"input": "Q", "output": "A"}


def test_columns_are_those_of_the_set_unless_the_user_names_others(folder):
    (folder / "icliniq.jsonl").write_text('{"input": "Q", "answer_icliniq": "A", "answer_chatgpt": "B"}\n')
    assert [row.fields for row in read_data("catalog:icliniq")] == [{"input": "Q", "output": "A"}]
    own = {"input": "input", "output": "answer_chatgpt"}
    assert [row.fields for row in read_data("catalog:icliniq", columns=own)] == [{"input": "Q", "output": "B"}]


def test_a_path_that_is_none_of_the_catalogue_stays_what_it_is():
    assert located("./catalog.jsonl") == ("./catalog.jsonl", None)
    assert located("a/b", {"input": "A"}) == ("a/b", {"input": "A"})


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("webmedqa", "Download it from https://github.com/hejunqing/webMedQA, and put it in the folder"),
        ("chip_mdcfnpc", "sign in at tianchi.aliyun.com, accept the terms, download the set, and put it in the folder"),
        ("genmedgpt", "Download it from https://drive.google.com/file/d/"),
        ("toyhom", "Run `git clone --depth 1 https://github.com/Toyhom/Chinese-medical-dialogue-data "),
        ("cmtmedqaa", "no such data set. Did you mean 'cmtmedqa'"),
    ],
)
def test_what_cannot_be_read_from_here_says_how_to_get_it(folder, name, wanted):
    with pytest.raises(DataError) as fault:
        read_data(f"catalog:{name}")
    assert wanted in str(fault.value) and "\n" not in str(fault.value)


def test_a_config_is_told_of_it_before_anything_is_loaded(folder):
    (fault,) = check(load("qwen2_5_7b_instruct_qlora_toyhom_e1").values)
    assert "catalog:toyhom: no copy of it here" in fault
    with pytest.raises(ConfigError, match="no such data set"):
        from medtune.build import raise_faults

        raise_faults(check(load("med_llama_tiny_lora_medqa_e3", [("data_path", "catalog:toyhon")]).values))


def test_real_files_of_sets_in_the_catalogue_have_the_shapes_it_says(shared, monkeypatch):
    monkeypatch.setenv("MEDTUNE_DATA", str(shared / "data"))
    for name in ("toyhom", "medalpaca"):
        rows = iter(read_data(f"catalog:{name}"))
        head = [next(rows) for _ in range(20)]
        map_fn = resolve_map_fn(named(name).map_fn, *head)
        assert all(apply_map_fn(map_fn, row).messages for row in head), name


def test_the_command_prints_a_table_one_entry_and_json(run, folder):
    code, out, _ = run("data", "catalog")
    assert code == 0 and out.count("\n") == len(catalog()) + len(STAGES)
    assert [line for line in out.splitlines() if not line.startswith(" ")] == [f"{stage}:" for stage in STAGES]
    narrowed = run("data", "catalog", "-p", "REWARD")[1]
    assert narrowed.splitlines()[0] == "reward:" and narrowed.count("\n") == 1 + len(list(matching("reward")))
    one = run("data", "catalog", "qizhen")[1]
    assert "gpl-3.0" in one and "alpaca" in one and "qwen2_5_7b_instruct_qlora_qizhen_e3" in one and "git clone" in one
    entries = json.loads(run("data", "catalog", "--json")[1])
    assert [entry["name"] for entry in entries] == list(catalog())
    keys = {"name", "stage", "place", "files", "language", "rows", "licence", "shape", "map_fn", "config"}
    assert all(keys <= set(entry) for entry in entries)
    assert all((entry["config"] is None) == (entry["map_fn"] is None) for entry in entries)
    assert "contains 'gpt9'" in run("data", "catalog", "-p", "gpt9")[1]


def test_an_unknown_name_is_a_usage_fault_with_the_near_ones(run):
    code, out, err = run("data", "catalog", "quizhen")
    assert (code, out) == (2, "") and "Did you mean 'qizhen'" in err and err.count("\n") == 1


def test_the_page_of_configs_names_every_data_set_of_the_catalogue():
    page = (ROOT / "docs" / "configs.md").read_text(encoding="utf-8")
    assert [name for name in (*catalog(), *data_configs()) if f"`{name}`" not in page] == []


def test_detection_and_catalogue_agree_where_no_map_function_is_named(folder):
    """`catalog:NAME` with columns needs no dataset_map_fn: rows are then detected."""
    for entry in catalog().values():
        if entry.columns:
            assert {"default": "default", "openai": "openai"}[entry.map_fn] in DETECTED
