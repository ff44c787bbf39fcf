"""Names of configs: any known model, method, data set and number of epochs make one, on disk or not.

Each data set is read and encoded, each architecture trains a step with each method, and each model's chat format is the
one its authors published.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from catalog_rows import OWN_ROWS, with_rows
from config_helpers import fault
from conftest import ROOT

from medtune.build import build, check
from medtune.cli import main
from medtune.config import builtin_configs, compose, data_configs, find, load, read_config
from medtune.config_names import known_parts, split_name
from medtune.config_text import assignments, join_child
from medtune.data.catalog import PREFIX, catalog
from medtune.data.map_fns import named_map_fn
from medtune.data.records import Message
from medtune.data.templates import resolve_template
from medtune.families import MODELS, REFUSED

DATA = list(data_configs())

# transformers' model type -> its config class and what a small random model of it needs besides sizes.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": ("Gemma2Config", {"head_dim": 16, "sliding_window": 64}),
    "gemma3": ("Gemma3Config", {"head_dim": 16, "sliding_window": 64}),
    "gemma3_text": ("Gemma3TextConfig", {"head_dim": 16, "sliding_window": 64}),
    "gpt_bigcode": ("GPTBigCodeConfig", {}),
    "glm": ("GlmConfig", {"head_dim": 16, "pad_token_id": 0}),
    "glm4": ("Glm4Config", {"head_dim": 16, "pad_token_id": 0}),
    "internlm3": ("InternLM3Config", {"head_dim": 16}),
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 2}),
    "phi3": ("Phi3Config", {"pad_token_id": 0}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {"head_dim": 16, "num_experts": 2, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    ),
}
EYES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
PICTURE_TOKENS = ("image_token", "boi_token", "eoi_token")


# ---------------------------------------------------------------- composing


def test_a_name_that_is_not_on_disk_is_a_config():
    name = "qwen3_4b_lora_cmtmedqa_e2"
    assert name not in builtin_configs()
    values = load(name).values
    assert check(values) == []
    assert values["pretrained_model_name_or_path"] == "Qwen/Qwen3-4B"
    assert (values["method"], values["max_epochs"], values["data_path"]) == ("lora", 2, "catalog:cmtmedqa")


def test_several_gpus_share_the_packs_of_a_step():
    assert load("qwen3_4b_qlora_oasst1_e3").values["accumulative_counts"] == 16
    for gpus, wanted in ((1, 16), (4, 4), (8, 2), (64, 1)):
        assert load(f"qwen3_4b_qlora_oasst1_e3_gpu{gpus}").values["accumulative_counts"] == wanted


def test_such_a_name_may_be_a_base_and_takes_overrides(tmp_path):
    child = tmp_path / "mine.py"
    child.write_text('_base_ = "gemma2_9b_it_lora_oasst1_e7"\nmax_length = 99\n')
    values = load(str(child), [("max_epochs", "2")]).values
    assert (values["train_dataset"]["max_length"], values["max_epochs"]) == (99, 2)
    assert values["pretrained_model_name_or_path"] == "google/gemma-2-9b-it"


def test_every_model_and_every_data_set_goes_into_a_name_and_every_line_is_short():
    for model in MODELS:
        text = read_config(find(f"{model}_full_shennong_tcm_e10_gpu16"))
        assert max(map(len, text.split("\n"))) <= 120, model
    for data in DATA:
        text = read_config(find(f"deepseek_r1_distill_llama_70b_full_{data}_e10_gpu16"))
        assert max(map(len, text.split("\n"))) <= 120, data


def test_a_copy_keeps_the_childs_setting_where_its_data_set_has_it_too():
    base = '"""B."""\n\n_base_ = "sft"\n\nlr = 1\nseed = 2\n'
    child = '"""C."""\n\n_base_ = "data/b"\nlr = 3\n'
    assert join_child(base, child) == '"""C."""\n\n_base_ = "sft"\n\nlr = 3\nseed = 2\n'


def test_a_gated_model_says_so_at_the_top():
    assert "Gated: accept the licence" in compose(find("llama3_1_8b_instruct_lora_cmb_e1"))[:300]


def test_data_that_needs_a_format_of_its_own_keeps_it():
    assert load("llama2_7b_qlora_moss_sft_plugins_e1").values["prompt_template"] == "qwen_chat"
    assert load("llama2_7b_qlora_medical_e1").values["prompt_template"] == "llama2_chat"
    assert load("llama2_7b_qlora_pt_medical_e1").values["prompt_template"]["end"] is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("qwen9_8b_qlora_medical_e1", "no model 'qwen9_8b' is known. Did you mean 'qwen3_8b'"),
        ("qwen3_8b_qlora_medicla_e1", "no data set 'medicla' is known. Did you mean 'medical'"),
        ("gwen3_8b_qlora_medicla_e1", "'gwen3_8b' is known. Did you mean 'qwen3_8b'"),
        ("gwen3_8b_qlora_medicla_e1", "And no data set 'medicla' is known. Did you mean 'medical'"),
        ("baichuan2_13b_chat_qlora_medical_e1", "baichuan2_13b_chat is not trained here: its attention has ALiBi"),
        ("qwen3_8b_dora_medical_e1", "no config named 'qwen3_8b_dora_medical_e1'. Did you mean"),
        ("qwen3_8b_qlora_medical_e0", "no config named 'qwen3_8b_qlora_medical_e0'. Did you mean"),
        ("qwen3_8b_qlora_medical", "no config named 'qwen3_8b_qlora_medical'. Did you mean"),
    ],
)
def test_a_name_of_something_unknown_names_the_near_ones(name, wanted):
    said = fault(find, name)
    assert wanted in said and "\n" not in said


def test_every_name_of_xtuner_0_1_9_is_found_but_those_that_are_refused():
    """Its 25 checkpoints by its recipes; the suffixes _hf and _mmlu and 8-bit LoRA are other programs."""
    models = """baichuan2_7b_base baichuan2_7b_chat baichuan_7b chatglm2_6b chatglm3_6b chatglm3_6b_base internlm_20b
        internlm_7b internlm_chat_20b internlm_chat_7b llama2_70b llama2_7b llama2_7b_chat llama_7b qwen_7b qwen_7b_chat
        yi_34b yi_6b zephyr_7b_beta mistral_7b starcoder"""
    recipes = """alpaca_e3 alpaca_enzh_e3 alpaca_enzh_oasst1_e3 alpaca_zh_e3 arxiv_gentitle_e3 code_alpaca_e3
        colorist_e5 lawyer_e3 medical_e1 moss_sft_all_e1 moss_sft_all_e2_gpu8 moss_sft_plugins_e1 msagent_react_e3_gpu8
        oasst1_512_e3 oasst1_e3 open_platypus_e1 open_platypus_e3 openorca_e1 sql_e3 tiny_codes_e1 wizardlm_e1"""
    for model in models.split():
        for recipe in recipes.split():
            assert known_parts(f"{model}_qlora_{recipe}", DATA), (model, recipe)
    assert {"baichuan2_13b_base", "baichuan2_13b_chat", "baichuan_13b_base", "baichuan_13b_chat"} <= set(REFUSED)


# ---------------------------------------------------------------- commands


@pytest.fixture
def run(capsys):
    """Run a command line in this process; returns exit code, standard output and standard error."""

    def run_words(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        return code, *capsys.readouterr()

    return run_words


def test_copy_cfg_writes_a_composed_config_that_loads(run, tmp_path):
    assert run("copy-cfg", "qwen3_4b_lora_cmtmedqa_e2", str(tmp_path))[0] == 0
    copy = tmp_path / "qwen3_4b_lora_cmtmedqa_e2_copy.py"
    settings = assignments(copy.read_text(encoding="utf-8"))
    assert {"_base_", "data_path", "SYSTEM", "pretrained_model_name_or_path"} <= set(settings)
    assert load(str(copy)).values["data_path"] == "catalog:cmtmedqa"


def test_copy_cfg_of_an_unknown_model_is_a_usage_fault_and_writes_nothing(run, tmp_path):
    code, _, err = run("copy-cfg", "qwen9_4b_lora_cmtmedqa_e2", str(tmp_path / "new"))
    assert code == 2
    assert "no model 'qwen9_4b' is known. Did you mean 'qwen3_4b'" in err and err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_train_checks_a_composed_config_before_anything_is_fetched(run):
    code, _, err = run("train", "gemma2_2b_it_lora_medqa_e1", "lr=fast", "--check")
    assert code == 2 and "lr=fast" in err


def test_resume_before_a_composed_name_is_not_a_checkpoint(run):
    """`train --resume NAME`: argparse takes the name for --resume's path."""
    code, _, err = run("train", "--resume", "gemma2_2b_it_lora_medqa_e1", "lr=fast", "--check")
    assert code == 2 and "lr=fast: wanted a number" in err


def test_list_cfg_prints_models_data_sets_and_json(run):
    models = run("list-cfg", "--models", "-p", "QWEN3")[1].splitlines()
    assert models[0] == "qwen:" and "  qwen3_8b" in models and "  qwen2_7b_instruct" not in models
    assert run("list-cfg", "--data")[1].split() == DATA
    (entry,) = json.loads(run("list-cfg", "-p", "internlm_7b_qlora_msagent", "--json")[1])
    assert entry == {"name": "internlm_7b_qlora_msagent_react_e3_gpu8", "family": "internlm", "model": "internlm_7b",
                     "method": "qlora", "data": "msagent_react", "epochs": 3, "gpus": 8}  # fmt: skip
    assert run("list-cfg", "--models", "-p", "gpt9")[1] == "no model name contains 'gpt9'\n"


# ---------------------------------------------------------------- data sets


@pytest.mark.parametrize("data", DATA)
def test_a_data_set_is_read_by_its_config_and_its_answers_are_trained(data, tmp_path, tiny_tokenizer, monkeypatch):
    monkeypatch.setenv("MEDTUNE_DATA", str(tmp_path))
    values = load(f"med_llama_tiny_lora_{data}_e1").values
    node = values["train_dataset"]
    node["dataset"]["data_path"], num_rows = with_rows(values, tmp_path)
    built = build({**node, "data_cache": False, "num_proc": 1})
    assert built.report.num_rows == num_rows
    sample = built.samples[0]
    said = tiny_tokenizer.decode([t for t in sample["labels"].tolist() if t >= 0])
    if str(values["data_path"]) not in OWN_ROWS:
        assert "38" in said or "体温" in said or "B" in said


@pytest.mark.parametrize(
    ("data", "columns"),
    [
        ("sql", "context question answer"),
        ("code_alpaca", "prompt completion"),
        ("tiny_codes", "prompt response"),
        ("open_platypus", "instruction input output"),
        ("openorca", "id system_prompt question response"),
        ("stack_exchange", "qid question response"),
    ],
)
def test_a_set_of_a_hub_is_read_by_the_columns_it_has_there(data, columns):
    map_fn = named_map_fn(load(f"med_llama_tiny_lora_{data}_e1").values["dataset_map_fn"])
    assert map_fn(dict.fromkeys(columns.split(), "x"))["conversation"][0]["output"] == "x"


@pytest.mark.parametrize("data", DATA)
def test_a_data_set_holds_plain_settings_that_the_catalogue_agrees_with(data):
    text = read_config(data_configs()[data])
    body = [line for line in text.split("\n") if line and line[0].isalpha() and "=" not in line and "(" not in line]
    assert not [line for line in body if line.startswith(("import", "from", "def", "class"))]
    settings = {name: place.value for name, place in assignments(text).items()}
    assert len(text.split("\n")[0].strip('"')) <= 48  # names of models and methods stand before it
    path = getattr(settings.get("data_path"), "value", "") or ""
    if path.startswith(PREFIX):
        entry = catalog()[path.removeprefix(PREFIX)]
        assert entry.map_fn and (entry.name == data or entry.stage == "reward")
        named = getattr(settings.get("dataset_map_fn"), "value", None)
        assert named in (entry.map_fn, None) and (named or entry.columns or entry.stage == "pre-training")
    assert data in OWN_ROWS or path or "data_path" in settings or settings["_base_"].value.startswith("data/")


# ---------------------------------------------------------------- models

# Chat models whose tokenizers bring their format -> the fixture of it, which test_chat_families holds to every token.
PUBLISHED = {
    "deepseek_r1": "deepseek_r1", "gemma2": "gemma2", "gemma3": "gemma3", "medgemma": "medgemma", "glm4": "glm4",
    "chatglm3_6b": "chatglm3", "huatuogpt_o1_7b": "qwen25", "huatuogpt_o1_8b": "huatuogpt_o1", "internlm2": "internlm2",
    "internlm3": "internlm2", "llama2_7b_chat": "llama2", "llama3": "llama31", "med42": "llama31", "phi3": "phi3",
    "mistral_7b_instruct": "mistral_v03", "mixtral": "mistral_v03", "phi4_mini": "phi3", "phi4": "phi4",
    "qwen1_5": "qwen25", "qwen2": "qwen25", "qwen3": "qwen3", "yi1_5": "yi", "zephyr": "zephyr",
    "med_llama_tiny": "qwen25",
}  # fmt: skip
# Chat models of a time before chat templates -> their published prompt of two questions, with what they answered first.
WRITTEN_OUT = {
    "internlm_chat_7b": "<|User|>:Q1<eoh>\n<|Bot|>:A1<eoa>\n<|User|>:Q2<eoh>\n<|Bot|>:",
    "internlm_chat_20b": "<|User|>:Q1<eoh>\n<|Bot|>:A1<eoa>\n<|User|>:Q2<eoh>\n<|Bot|>:",
    "qwen_1_8b_chat": "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
    "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
    "qwen_7b_chat": "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
    "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\n",
    "chatglm2_6b": "[Round 1]\n\n问：Q1\n\n答：A1{eos}\n\n[Round 2]\n\n问：Q2\n\n答：",
    "baichuan2_7b_chat": "<reserved_106>Q1<reserved_107>A1{eos}<reserved_106>Q2<reserved_107>",
    "meditron3_8b": "<|start_header_id|>user<|end_header_id|>\n\nQ1<|eot_id|><|start_header_id|>assistant"
    "<|end_header_id|>\n\nA1<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ2<|eot_id|><|start_header_id|>"
    "assistant<|end_header_id|>\n\n",
}
# Base models: nobody published a chat format for them.
BASE = {
    "internlm_7b", "internlm_20b", "internlm2_7b", "llama_7b", "llama2_7b", "llama2_70b", "llama3_8b", "qwen_1_8b",
    "qwen_7b", "chatglm3_6b_base", "baichuan_7b", "baichuan2_7b_base", "mistral_7b", "yi_6b", "yi_34b", "meditron_7b",
    "biomistral_7b", "starcoder",
}  # fmt: skip


def published(model: str) -> str | None:
    """The fixture of a model's format: that of the longest beginning of its name."""
    found = [start for start in PUBLISHED if model.startswith(start)]
    return PUBLISHED[max(found, key=len)] if found else None


@pytest.mark.parametrize("model", MODELS)
def test_a_chat_model_is_trained_in_its_published_format_and_a_base_model_in_a_named_one(model):
    if model in BASE or model in WRITTEN_OUT:
        assert MODELS[model].template is not None
    else:
        assert MODELS[model].template is None
        assert (ROOT / "tests/data/chat_templates" / f"{published(model)}.jinja").is_file()


@pytest.mark.parametrize("model", WRITTEN_OUT)
def test_a_named_format_writes_what_the_authors_published(model, tiny_tokenizer):
    """ChatGLM2's and Baichuan 2's own code ends no answer of the past; we put there the token that ends it."""
    template = resolve_template(MODELS[model].template, tiny_tokenizer)
    said = [Message("user", "Q1"), Message("assistant", "A1"), Message("user", "Q2")]
    rendered = "".join(segment.text for segment in template.render(said, add_generation_prompt=True))
    wanted = WRITTEN_OUT[model].replace("{eos}", tiny_tokenizer.eos_token)
    assert rendered.removeprefix(tiny_tokenizer.bos_token or "") == wanted


def test_every_architecture_of_the_models_is_trained_below():
    assert {model.trains_as for model in MODELS.values()} == set(ARCHITECTURES)


@pytest.fixture(scope="module")
def random_model(tmp_path_factory, tiny_tokenizer):
    """Folder of a random two-layer model of an architecture, with the tiny tokenizer."""
    folders: dict[str, Path] = {}

    def make(kind: str) -> Path:
        import torch
        import transformers

        if kind not in folders:
            class_name, settings = ARCHITECTURES[kind]
            sizes: dict[str, Any] = {
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
            }
            sizes |= {"num_key_value_heads": 2, "vocab_size": len(tiny_tokenizer), "max_position_embeddings": 512}
            sizes |= settings
            if kind == "gemma3":  # a model of text and pictures
                sizes = {"text_config": {**sizes, "vocab_size": len(tiny_tokenizer) + 3}, "vision_config": EYES}
                sizes |= {f"{token}_index": len(tiny_tokenizer) + i for i, token in enumerate(PICTURE_TOKENS)}
            config = getattr(transformers, class_name)(**sizes)
            torch.manual_seed(0)
            folders[kind] = tmp_path_factory.mktemp(kind)
            transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folders[kind])
            tiny_tokenizer.save_pretrained(folders[kind])
        return folders[kind]

    return make


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_architecture_trains_a_step(kind, method, tmp_path, random_model, tiny_tokenizer):
    from safetensors.torch import load_file

    from medtune.engine.train import train

    model = next(name for name, model in MODELS.items() if model.trains_as == kind)
    name = f"{model}_{method}_open_platypus_e1"
    assert split_name(name).method == method
    data_path, num_rows = with_rows(load(name).values, tmp_path)
    changes = {
        "pretrained_model_name_or_path": random_model(kind),
        "data_path": data_path,
        "max_steps": 1,
        "accumulative_counts": 2,
        "max_length": 192,
        "evaluation_max_new_tokens": 2,
    }
    runner = train(load(name, [(key, str(value)) for key, value in changes.items()]), tmp_path / "work")
    assert runner.loop.iter == 1
    assert runner.inputs.train_dataset.report.num_rows == num_rows
    assert runner.metrics["loss"] == pytest.approx(math.log(len(tiny_tokenizer)), abs=0.6)  # it knows nothing yet
    (checkpoint,) = (tmp_path / "work").glob("*.pth")
    kinds = {type(module).__name__ for module in runner.model.modules()}
    assert ("Linear4bit" in kinds) == (method == "qlora")
    if method == "full":
        assert (checkpoint / "model.safetensors").is_file()
    else:
        adapter = load_file(checkpoint / "adapter_model.safetensors")
        assert all(weight.any() for weight in adapter.values())  # B starts at zero: one step has moved all of it
