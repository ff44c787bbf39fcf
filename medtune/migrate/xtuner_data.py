"""PART 3 of an XTuner config: its data sets as sources of `data_path`, and how they are read and packed."""

from __future__ import annotations

from typing import Any

from medtune.data.template_table import TEMPLATES
from medtune.errors import ConfigError, nearest
from medtune.migrate.old_config import Name, OldConfig
from medtune.migrate.outcome import Code, Outcome
from medtune.migrate.parts import Part

MAP_FNS = {"intel_orca_dpo": "question_pair", "orpo_dpo_mix_40k": "preference"}
FOR_PICTURES = ("LLaVADataset", "InternVL_V1_5_Dataset", "RefCOCOJsonDataset", "RefCOCOJsonEvalDataset")
TOKENIZED = ("process_intern_repo_dataset", "build_packed_dataset", "load_intern_repo_tokenized_dataset")
PROCESSED = ("process_hf_dataset", "process_ms_dataset")
LOADED_FILES = ("json", "csv", "parquet", "text", "arrow")
NOT_NEEDED = (  # noqa: SIM905
    "tokenizer remove_unused_columns shuffle_before_pack use_varlen_attn input_ids_with_output with_image_token "
    "do_dataset_tokenization is_dpo is_reward reward_token_id max_packed_length bot_name"
).split()


def migrate_data(old: OldConfig, out: Outcome) -> None:
    """Read the data sets and the loader.

    Raises:
        ConfigError: data of pictures, or tokenized data, which has no text left.
    """
    loader = Part(old.values.get("train_dataloader"), "train_dataloader", out)
    given = loader.take("dataset")
    dataset = Part(old.values.get("train_dataset", given), "train_dataset", out)
    sources = [_source(part, old, out) for part in _members(dataset)]
    sources = [source for source in sources if source]
    if sources and all(source.get("dataset_map_fn") == "pretrain" for source in sources):
        _pre_training(sources, out)
    _put_sources(sources, out)
    _loader(loader, out)
    if out.stage == "sft":
        out.put(
            "overflow",
            "truncate",
            "samples above max_length were cut unsaid -> overflow truncate, each counted; or drop, or split",
        )
    validation = Part(old.values.get("val_dataset"), "val_dataset", out)
    if validation and (source := _source(validation, old, Outcome("XTuner"))):
        out.put("val_data_path", source.get("path"), "val_dataset -> val_data_path, read as data_path is")
    for name in ("val_evaluator", "test_evaluator"):
        if kind := Part(old.values.get(name), name, out).kind:
            out.miss(f"{name} {kind}: validation measures loss and accuracy; `medtune test` does so after training")


def _members(dataset: Part) -> list[Part]:
    """The data sets of a ConcatDataset, or the one."""
    if dataset.kind != "ConcatDataset":
        return [dataset] if dataset else []
    inner = dataset.take("datasets") or dataset.take("datasets_cfg") or []
    listed = list(inner.values()) if isinstance(inner, dict) else inner if isinstance(inner, (list, tuple)) else []
    return [Part(one, f"train_dataset.{i}", dataset.out) for i, one in enumerate(listed)]


def _source(part: Part, old: OldConfig, out: Outcome) -> dict[str, Any]:
    """One data set as a source of data_path; what holds for all of them becomes a setting."""
    if part.kind in FOR_PICTURES:
        raise ConfigError(f"{old.where}: {part.kind} reads pictures; medtune trains on text alone.")
    if part.kind in TOKENIZED:
        raise ConfigError(
            f"{old.where}: {part.kind} reads tokenized data, which has no text left. Name the data itself."
        )
    if part.kind == "MOSSSFTDataset":
        source: dict[str, Any] = {"path": part.take("data_file"), "dataset_map_fn": "moss"}
        out.mapped.append("MOSSSFTDataset -> dataset_map_fn moss, and a prompt_template with a place for tools")
    elif part.kind in (*PROCESSED, "build_preference_dataset"):
        source = _loaded(part.part("dataset"), out)
        source["dataset_map_fn"] = _map_fn(part.take("dataset_map_fn"), old, out)
        split = part.take("split", "train")
        source["split"] = source.get("split") or split
    else:
        out.miss(f"{part.where} of {part.kind}: set data_path (and dataset_map_fn, a function of one row)")
        return {}
    _settings_of_all(part, out)
    return {key: value for key, value in source.items() if value is not None and (key, value) != ("split", "train")}


def _settings_of_all(part: Part, out: Outcome) -> None:
    """Settings that a data set of XTuner has for itself, and a config of medtune for all of its data."""
    found: dict[str, Any] = {"max_length": part.take("max_length")}
    if part.kind in PROCESSED:
        found["pack_to_max_length"] = part.take("pack_to_max_length", True)
    if part.kind in PROCESSED or "template_map_fn" in part.left:
        template = part.part("template_map_fn")
        found["prompt_template"] = _template(template.take("template"), part, out)
    if part.kind == "MOSSSFTDataset":
        found |= {"pack_to_max_length": False, "prompt_template": "qwen_chat"}
    found["max_train_samples"] = part.take("max_dataset_length")
    found["num_proc"] = part.take("map_num_proc", part.take("num_proc"))
    for name, value in found.items():
        if value is None:
            continue
        if name in out.settings and out.settings[name] != value:
            out.miss(f"{part.where}: its own {name}; here one holds for all data, that of the first")
        else:
            out.put(name, value)
    renamed = {"rename_maps": 'data_columns=dict(input="A", output="B") names columns'}
    part.rest(silent=NOT_NEEDED, told=renamed)


def _loaded(call: Part, out: Outcome) -> dict[str, Any]:
    """What a `load_dataset` of datasets, or a loader of files, names."""
    path, subset, files = call.take("path"), call.take("name"), call.take("data_files")
    split = call.take("split")
    path = call.take("dataset_name") if path is None and "dataset_name" in call.left else path
    path = call.take("dataset_path", call.take("data_dir")) if path is None and files is None else path
    if call.kind == "MsDataset" and isinstance(path, str):
        path = f"modelscope://{path}"
    if isinstance(split, str) and "[" in split:
        out.miss(f"split={split!r}: max_train_samples and val_ratio take parts")
        split = split.split("[")[0]
    if isinstance(files, dict):
        files = files.get(split or "train", next(iter(files.values()), None))
    if files is not None and (path is None or path in LOADED_FILES):
        path = files[0] if isinstance(files, (list, tuple)) and len(files) == 1 else files
    elif isinstance(files, str) and isinstance(path, str):
        path = f"hf://datasets/{path}/{files}"
    if call.kind == "load_from_disk" or files is not None:
        split = None
    call.rest(silent=("num_proc", "cache_dir", "trust_remote_code", "save_infos", "keep_in_memory"))
    return {"path": path, "subset": subset, "split": split}


def _map_fn(given: Any, old: OldConfig, out: Outcome) -> Any:
    """A map function's name, or the user's own as code."""
    if isinstance(given, str):
        return MAP_FNS.get(given, given)
    if not isinstance(given, Name):
        if given is not None:
            out.miss(
                "dataset_map_fn is computed by code: it is detected from the rows; name one or a function of one row"
            )
        return None
    if given.path.startswith("xtuner."):
        name = given.last.removesuffix("_map_fn")
        if "llava" in name:
            raise ConfigError(f"{old.where}: {given.last} is for pictures; medtune trains on text alone.")
        return MAP_FNS.get(name, name)
    out.mapped.append(f"dataset_map_fn {given.source}: your own function, kept")
    return Code(given.source)


def _template(given: Any, part: Part, out: Outcome) -> Any:
    """A template by name, or a mapping of one's own."""
    if isinstance(given, Name) and "PROMPT_TEMPLATE" in given.path:
        given = given.last
    if isinstance(given, str):
        if given not in TEMPLATES:
            out.miss(f"prompt_template {given!r}: unknown here.{nearest(given, TEMPLATES)} None is the tokenizer's own")
            return None
        return given
    if isinstance(given, Name):
        return Code(given.source)
    return given


def _put_sources(sources: list[dict[str, Any]], out: Outcome) -> None:
    if not sources:
        return
    several = len(sources) > 1 or isinstance(sources[0].get("path"), (list, tuple))
    if not several and set(sources[0]) <= {"path", "dataset_map_fn"}:
        out.put("dataset_map_fn", sources[0].get("dataset_map_fn"))
        out.put("data_path", sources[0].get("path"))
        out.mapped.append("train_dataset -> data_path, dataset_map_fn, prompt_template, max_length, pack_to_max_length")
        return
    listed: list[Any] = []
    for source in sources:
        for path in source["path"] if isinstance(source["path"], (list, tuple)) else [source["path"]]:
            item = {**source, "path": path}
            listed.append(path if list(item) == ["path"] else item)
    out.put("data_path", listed, "train_dataset -> a list of sources in data_path, each with its dataset_map_fn")


def _pre_training(sources: list[dict[str, Any]], out: Outcome) -> None:
    """Text to learn as it stands."""
    out.stage = "pt"
    for settings in (*sources, out.settings):
        for name in ("dataset_map_fn", "prompt_template"):
            settings.pop(name, None)
    length = out.settings.pop("max_length", None)
    if length is not None:
        out.put("block_size", length, f"pretrain_map_fn -> the base pt, max_length {length} -> block_size")


def _loader(loader: Part, out: Outcome) -> None:
    for key, setting in (("batch_size", "batch_size"), ("num_workers", "dataloader_num_workers")):
        if (value := loader.take(key)) is not None:
            out.put(setting, value)
    sampler = loader.part("sampler")
    if sampler.kind == "LengthGroupedSampler":
        out.put("group_by_length", True, "LengthGroupedSampler -> group_by_length")
    elif sampler.kind not in ("", "DefaultSampler", "SequenceParallelSampler", "InternRepoSampler", "InfiniteSampler"):
        out.miss(f"train_dataloader.sampler {sampler.kind}: packs are drawn anew each epoch, by seed")
    if sampler.take("shuffle", True) is False:
        out.miss("sampler shuffle=False: say train_dataloader.shuffle=False on the command line")
    collate = loader.part("collate_fn")
    if collate.type is not None and collate.kind not in (
        "default_collate_fn",
        "preference_collate_fn",
        "mmlu_collate_fn",
    ):
        out.miss(f"train_dataloader.collate_fn {collate.kind}: rows are laid end to end without padding here")
    silent = ("persistent_workers", "pin_memory", "drop_last", "prefetch_factor", "batch_sampler")
    loader.rest(silent=silent)
