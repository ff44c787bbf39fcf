"""What must be the same for a resumed run to give the same numbers, and how a difference is told to the user."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from medtune.config import RUNTIME_NAMES, Config
from medtune.config_text import assignments
from medtune.engine import distributed

if TYPE_CHECKING:
    from medtune.engine.runner import Inputs

# Parts of a config that decide the numbers. What decides the data is told by the data's fingerprint.
SECTIONS = ("model", "train_dataloader", "optim_wrapper", "param_scheduler", "train_cfg")
# Arguments in them that do not, or that a fingerprint or a product tells better.
NEUTRAL = frozenset(
    "pretrained_model_name_or_path revision trust_remote_code device device_map offload_folder "  # noqa: SIM905
    "use_activation_checkpointing dataset batch_size accumulative_counts num_workers".split()
)
# Settings that explain no difference, or only that of the base model.
WHICH_MODEL = frozenset({"pretrained_model_name_or_path", "model_revision"})
UNTOLD = WHICH_MODEL | {"trust_remote_code", "device", "use_activation_checkpointing", "dataloader_num_workers"}
# Fact -> the parts of a config whose settings explain it, and what is said where none of them differs.
EXPLAINED_BY = {
    "data": (("train_dataset", "tokenizer"), "the data's content"),
    "base_model": (("model",), "the base model's weights"),
    "world_size": ((), "ranks {old} -> {new}"),
    "packs_per_rank": (("train_dataloader",), "packs of a rank in an optimizer step {old} -> {new}"),
}
SHOWN = 60  # characters of a setting's value


def identity(config: Config, inputs: Inputs, base_model: dict[str, Any]) -> dict[str, Any]:
    """Facts of a run, known before a weight is loaded; `state.json` holds them.

    Args:
        config: the config that ran.
        inputs: its data.
        base_model: from `record.base_model`.
    """
    ranks = distributed.world_size()
    return {
        "data": inputs.train_dataset.fingerprint(),
        "base_model": base_model["fingerprint"],
        "world_size": ranks,
        "packs_per_rank": inputs.train_data.batch_sampler.packs_per_step // ranks,  # type: ignore[union-attr]
        "settings": {key: leaf for name in SECTIONS for key, leaf in _leaves(config.values.get(name), name)},
    }


def _leaves(node: Any, where: str) -> Iterator[tuple[str, Any]]:
    """`optim_wrapper.optimizer.lr` and 0.001, and so on; a function or class is told by its name."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in pairs:
        if key not in NEUTRAL:
            yield from _leaves(value, f"{where}.{key}")
    if node is None or isinstance(node, (str, bool, int, float)):
        yield where, node
    elif not isinstance(node, (dict, list, tuple)):
        named = node if hasattr(node, "__qualname__") else type(node)
        yield where, f"{named.__module__}.{named.__qualname__}"


def differences(saved: dict[str, Any], mine: dict[str, Any], saved_text: str, text: str) -> list[str]:
    """What differs from a checkpoint's run, by the names of the settings: `lr 0.0002 -> 0.001`, `ranks 2 -> 1`.

    Args:
        saved: `identity` of the run that saved the checkpoint.
        mine: of this run.
        saved_text, text: of the two configs. They are compared, not run.
    """
    old, new = _assigned(saved_text), _assigned(text)
    untold = UNTOLD if saved.get("base_model") == mine["base_model"] else UNTOLD - WHICH_MODEL

    def named(*parts: str) -> list[str]:
        reached = (_mentioned(old, parts) | _mentioned(new, parts)) - untold
        names = [name for name in {**old, **new} if name in reached]
        return [f"{n} {_short(old.get(n))} -> {_short(new.get(n))}" for n in names if old.get(n) != new.get(n)]

    told: list[str] = []
    for fact, (parts, otherwise) in EXPLAINED_BY.items():
        if saved.get(fact) != mine[fact]:
            told += named(*parts) or [otherwise.format(old=saved.get(fact), new=mine[fact])]
    before, now = saved.get("settings") or mine["settings"], mine["settings"]
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    for part in dict.fromkeys(key.partition(".")[0] for key in changed):
        own = [key for key in changed if key.partition(".")[0] == part]
        told += named(part) or [f"{key} {before.get(key)!r} -> {now.get(key)!r}" for key in own]
    return list(dict.fromkeys(told))


def _assigned(text: str) -> dict[str, str]:
    """Top-level names of a config's text and the expressions assigned to them; none, if it is no config."""
    try:
        return {name: ast.unparse(setting.value) for name, setting in assignments(text).items()}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}


def _mentioned(values: dict[str, str], parts: tuple[str, ...]) -> set[str]:
    """Names that the expressions of `parts` mention, directly or through others, but not through other parts."""
    reached: set[str] = set()
    waiting = list(parts)
    while waiting:
        expression = values.get(waiting.pop())
        tree = ast.parse(expression, mode="eval") if expression else ast.Tuple([])
        found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {*reached, *RUNTIME_NAMES}
        reached |= found
        waiting += found
    return reached


def _short(expression: str | None) -> str:
    """A setting's value; of a long one, such as a path, its beginning and more of its end."""
    text = "unset" if expression is None else expression
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 4]}...{text[-SHOWN // 2 :]}"
