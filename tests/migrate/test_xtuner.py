"""XTuner's configs: thirty of them, written here in its style, become configs of medtune that mean the same."""

from __future__ import annotations

import ast

import pytest
from migrate_helpers import OLD, load_small, migrated, written

from medtune.build import check
from medtune.data.template_table import SYSTEM_TEMPLATE
from medtune.errors import ConfigError
from medtune.migrate.reading import read

FILES = sorted(OLD.glob("*.py"))
NAMES = [file.stem for file in FILES]
IMPORTED_IN_019 = (  # noqa: SIM905 - what its configs for text import, but from torch
    "PagedAdamW32bit load_dataset DefaultSampler CheckpointHook DistSamplerSeedHook IterTimerHook LoggerHook "
    "ParamSchedulerHook AmpOptimWrapper CosineAnnealingLR LoraConfig AutoModel AutoModelForCausalLM AutoTokenizer "
    "BitsAndBytesConfig Trainer TrainingArguments MsDataset ConcatDataset MOSSSFTDataset process_hf_dataset "
    "process_ms_dataset default_collate_fn mmlu_collate_fn alpaca_map_fn alpaca_zh_map_fn arxiv_map_fn "
    "code_alpaca_map_fn colors_map_fn crime_kg_assitant_map_fn default_map_fn law_reference_map_fn medical_map_fn "
    "msagent_react_map_fn oasst1_map_fn openorca_map_fn sql_map_fn stack_exchange_map_fn template_map_fn_factory "
    "tiny_codes_map_fn wizardlm_map_fn DatasetInfoHook EvaluateChatHook SupervisedFinetune PROMPT_TEMPLATE "
    "SYSTEM_TEMPLATE MMLUMetric"
).split()


def text_of(name: str) -> str:
    return (OLD / f"{name}.py").read_text(encoding="utf-8")


def edited(name: str, *changes: tuple[str, str]) -> str:
    """An old config with pieces of its text replaced, each of which must be there."""
    text = text_of(name)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


TUTORIAL = "internlm_chat_7b_qlora_oasst1_e3"


def test_there_are_thirty_and_they_import_every_name_that_the_text_configs_of_019_do():
    assert len(FILES) == 30
    imported = set()
    for file in FILES:
        nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        imported |= {alias.name for n in nodes if isinstance(n, ast.ImportFrom) for alias in n.names}
    assert set(IMPORTED_IN_019) <= imported


@pytest.mark.parametrize("name", NAMES)
def test_a_config_migrates_without_an_unknown_part(name, tmp_path):
    outcome, new = migrated(text_of(name), tmp_path)
    text = new.read_text(encoding="utf-8")
    assert "xtuner" not in text.split('"""', 2)[2] and "trust_remote_code" not in text
    assert len(text.splitlines()) < 50
    assert [line for line in outcome.missing if "trust_remote_code" in line]
    assert not [line for line in outcome.missing if "no such setting" in line]


def check_one(name, tmp_path):
    _, new = migrated(text_of(name), tmp_path)
    config = load_small(new)
    assert check(config.values) == []
    return config.values


@pytest.mark.parametrize("name", NAMES)
def test_a_migrated_config_has_no_fault(name, tmp_path):
    check_one(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_migrated_config_trains_a_step(name, tmp_path):
    from medtune.engine.train import train

    check_one(name, tmp_path)
    small = {"max_steps": 1, "batch_size": 1, "accumulative_counts": 2, "max_length": 256, "torch_dtype": "fp32"}
    small |= {"dataloader_num_workers": 0, "num_proc": 1, "data_cache": False}
    if name == "custom_pretrain_e1":
        del small["max_length"]
        small["block_size"] = 64
    if "reward" not in name:
        small["evaluation_max_new_tokens"] = 2
    config = load_small(tmp_path / "new.py", **small)
    hooks = config.values["custom_hooks"]
    config.values["custom_hooks"] = [hook for hook in hooks if hook["type"].__name__ != "LossPlotHook"]  # the slow one
    runner = train(config, tmp_path / "work")
    assert runner.loop.iter == 1
    assert runner.metrics["loss"] > 0


def test_the_tutorials_config_keeps_every_number(tmp_path):
    _, new = migrated(text_of(TUTORIAL), tmp_path)
    assert written(new) == {
        "_base_": "sft",
        "pretrained_model_name_or_path": "internlm/internlm-chat-7b",
        "method": "qlora",
        "data_path": "timdettmers/openassistant-guanaco",
        "dataset_map_fn": "oasst1",
        "prompt_template": "internlm_chat",
        "overflow": "truncate",
        "optim_type": "paged_adamw_32bit",
        "warmup_ratio": 0.0,
        "logging_interval": 1,
        "evaluation_freq": 31,
        "evaluation_inputs": ["请给我介绍五个上海的景点", "Please tell me five scenic spots in Shanghai"],
    }
    values = load_small(new).values
    assert (values["lora_r"], values["lora_alpha"], values["lora_dropout"]) == (64, 16, 0.1)
    assert (values["lr"], values["accumulative_counts"], values["max_length"]) == (2e-4, 16, 2048)


def test_an_override_reaches_what_is_derived_from_it(tmp_path):
    _, new = migrated(text_of(TUTORIAL), tmp_path)
    values = load_small(new, lr=1e-5, max_length=512).values
    assert values["optim_wrapper"]["optimizer"]["lr"] == 1e-5
    assert values["train_dataset"]["max_length"] == 512


def test_counts_of_forward_passes_become_optimizer_steps_and_it_says_so(tmp_path):
    outcome, new = migrated(text_of("custom_sft_openai_e1"), tmp_path)
    told = written(new)
    assert (told["save_steps"], told["evaluation_freq"], told["logging_interval"]) == (62, 62, 1)
    assert "save_steps 500 -> save_steps 62: in optimizer steps, of 8 forward passes each" in " ".join(outcome.mapped)
    _, new = migrated(text_of("zephyr_7b_beta_qlora_own_format"), tmp_path)
    told = written(new)
    assert (told["max_steps"], told["warmup_steps"], told["save_steps"]) == (100, 10, 20)
    assert (told["lr_schedule"], told["paramwise_cfg"]) == (
        "constant",
        "dict(custom_keys=dict(lora_A=dict(lr_mult=0.5)))",
    )


def test_a_warm_up_in_epochs_is_a_share_and_a_floor_is_a_share_of_the_rate(tmp_path):
    _, new = migrated(edited("llama2_7b_full_wizardlm_e1", ("warmup_ratio = 0.03", "warmup_ratio = 0.1")), tmp_path)
    assert written(new)["warmup_ratio"] == 0.1
    _, new = migrated(text_of("internlm_7b_qlora_openorca_e1"), tmp_path)
    assert written(new)["min_lr_ratio"] == 0.1


def test_what_the_dicts_say_wins_over_part_1(tmp_path):
    """Users edit the dicts, and leave a name of PART 1 behind that nothing reads."""
    text = edited(TUTORIAL, ("r=64,", "r=8,"), ("max_length=max_length", "max_length=1024"))
    _, new = migrated(text, tmp_path)
    assert (written(new)["lora_r"], written(new)["max_length"]) == (8, 1024)
    outcome = read(text + "lora_rank = 8\n", "old.py")
    assert [line for line in outcome.missing if line.startswith("lora_rank (line")]


@pytest.mark.parametrize(
    "name, data_path",
    [
        ("internlm_chat_7b_qlora_medqa2019_e3", "MedQA2019-structured-train.jsonl"),
        ("custom_map_fn_in_the_config", "./ward/questions.json"),
        ("internlm_7b_qlora_msagent_react_e3_gpu8", "modelscope://damo/MSAgent-Bench"),
        ("internlm_7b_qlora_arxiv_gentitle_e3", "./data/arxiv_data.json"),
        (
            "chatglm3_6b_qlora_medical_e1",
            "[dict(path='shibing624/medical', subset='finetune', dataset_map_fn='medical')]",
        ),
        (
            "baichuan2_7b_chat_qlora_lawyer_e3",
            "[dict(path='./data/CrimeKgAssitant清洗后_52k.json', dataset_map_fn='crime_kg_assitant'), "
            "dict(path='./data/训练数据_带法律依据_92k.json', dataset_map_fn='law_reference')]",
        ),
        (
            "custom_sft_openai_e1",
            "[dict(path='./a.jsonl', dataset_map_fn='openai'), dict(path='./b.jsonl', dataset_map_fn='openai')]",
        ),
    ],
)
def test_data_of_every_kind_becomes_data_path(name, data_path, tmp_path):
    _, new = migrated(text_of(name), tmp_path)
    assert written(new)["data_path"] == data_path


def test_a_function_of_the_users_own_is_kept_with_what_it_reads_and_its_comments(tmp_path):
    _, new = migrated(text_of("custom_map_fn_in_the_config"), tmp_path)
    values = load_small(new).values
    told = values["train_dataset"]["dataset_map_fn"]({"ask": "a --", "reply": "b"})
    assert told == {"conversation": [{"input": "a", "output": "b"}]}
    text = new.read_text(encoding="utf-8")
    assert "# our export has other column names" in text
    assert 'data_path = "./ward/questions.json"  # from the ward\'s export' in text


def test_an_import_of_a_module_beside_the_config_is_kept(tmp_path):
    _, new = migrated(text_of("custom_map_fn_beside_the_config"), tmp_path)
    assert "from ward_maps import ward_map_fn" in new.read_text(encoding="utf-8")
    assert load_small(new).values["quantization_bits"] == 8


def test_full_lora_and_qlora_are_told_apart(tmp_path):
    for name, method in (
        ("internlm_7b_full_alpaca_zh_e3", "full"),
        ("llama2_70b_lora_open_platypus_e1", "lora"),
        (TUTORIAL, "qlora"),
    ):
        assert read(text_of(name), name).settings["method"] == method


def test_a_system_template_with_a_bots_name_is_its_text(tmp_path):
    _, new = migrated(text_of("internlm_7b_qlora_moss_sft_all_e1"), tmp_path)
    assert written(new)["SYSTEM"] == SYSTEM_TEMPLATE["moss_sft"]


def test_what_has_no_equivalent_is_told_a_line_each():
    text = edited(
        "internlm2_chat_7b_qlora_alpaca_enzh_oasst1_e3",
        ("sequence_parallel_size = 1", "sequence_parallel_size = 4"),
        ('bnb_4bit_quant_type="nf4"', 'bnb_4bit_quant_type="fp4"'),
        ("load_from = None", 'load_from = "./iter_500.pth"'),
    )
    text += "strategy = dict(type='DeepSpeedStrategy')\nfor i in range(3):\n    pass\n"
    missing = "\n".join(read(text, "old.py").missing)
    for part in ("sequence_parallel_size 4", "bnb_4bit_quant_type", "load_from", "strategy", "`for i in range(3):`"):
        assert part in missing
    assert len(missing.splitlines()) == len(set(missing.splitlines()))


@pytest.mark.parametrize(
    "changes, told",
    [
        ([("lr = 2e-4", "lr = eval('2e-4')")], "old.py:37: it calls eval(), which runs text as a program"),
        ([("type=SupervisedFinetune", "type=LLaVAModel")], "LLaVAModel is trained on pictures"),
        ([("model = dict(", "modell = dict(")], "wanted model = dict(type=SupervisedFinetune"),
        ([("max_epochs = 3", "max_epochs = = 3")], "old.py:35: not Python"),
        ([("oasst1_map_fn", "llava_map_fn")], "llava_map_fn is for pictures"),
        ([("type=process_hf_dataset", "type=build_packed_dataset")], "reads tokenized data"),
        ([("    lora=dict(", "    lora=None, other=dict(")], "quantized weights cannot be trained"),
        ([("import torch\n", "import torch\nwith read_base():\n    from .base import *\n")], "read_base()"),
    ],
)
def test_what_cannot_be_migrated_is_refused_with_its_reason(changes, told):
    with pytest.raises(ConfigError) as caught:
        read(edited(TUTORIAL, *changes), "old.py", "xtuner")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_of_an_old_config_is_run(tmp_path):
    mark = tmp_path / "ran"
    text = text_of(TUTORIAL) + f"\nimport pathlib\nx = pathlib.Path({str(mark)!r}).touch()\n"
    migrated(text, tmp_path)
    assert not mark.exists()
