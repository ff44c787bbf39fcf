"""What several test modules need: tiny models, ragged samples, small runs in this process and in another."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from conftest import ASSETS, ROOT

VOCAB = 128
torch.set_num_threads(1)  # on tensors this small threads only cost, and fight over the cores


def tiny_llama(seed: int = 0, **changes: Any) -> Any:
    """A random Llama with 2 layers, hidden 64 and grouped-query attention, in fp32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": VOCAB,
        "max_position_embeddings": 512,
        "initializer_range": 0.1,  # large enough for attention to be far from uniform
        "pad_token_id": 0,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**sizes, **changes}))


def tiny_llama_folder(folder: Path, **changes: Any) -> Path:
    """A model folder: `tiny_llama` with the tokenizer of med-llama-tiny."""
    model = tiny_llama(vocab_size=12288, pad_token_id=3, eos_token_id=2, bos_token_id=None, **changes)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ASSETS / "med-llama-tiny" / name, folder)
    return folder


def ragged_samples(lengths: Sequence[int], seed: int = 0, vocab: int = VOCAB) -> list[dict[str, Any]]:
    """Random samples; of each a random end part is trained, one token at least."""
    rng = np.random.default_rng(seed)
    samples = []
    for i, length in enumerate(lengths):
        ids = rng.integers(1, vocab, length)
        first_trained = int(rng.integers(1, length))
        labels = np.where(np.arange(length) < first_trained, -100, ids)
        samples.append({"input_ids": ids.astype(np.int32), "labels": labels, "origin": f"data.jsonl:{i + 1}"})
    return samples


def padded_batch(samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The same samples as plain transformers wants them: one right-padded row each, -100 where untrained."""
    longest = max(len(s["input_ids"]) for s in samples)
    batch = {name: torch.zeros(len(samples), longest, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    batch["labels"] = torch.full((len(samples), longest), -100)
    for row, sample in enumerate(samples):
        length = len(sample["input_ids"])
        batch["input_ids"][row, :length] = torch.from_numpy(sample["input_ids"].astype(np.int64))
        batch["attention_mask"][row, :length] = 1
        batch["labels"][row, :length] = torch.from_numpy(sample["labels"])
    return batch


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Norm of the difference over norm of what is wanted, in fp64."""
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    """All gradients as one vector, in order of name."""
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


class LoopRun(NamedTuple):
    """What `run_loop` saw: each step's result, and its gradient by parameter, as the optimizer got it."""

    results: list[Any]
    gradients: list[dict[str, torch.Tensor]]


def run_loop(
    model: Any,
    samples: Sequence[dict[str, Any]],
    *,
    batch_size: int = 1,
    accumulative_counts: int = 1,
    max_steps: int = 1,
    packs: Sequence[Sequence[int]] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    **wrapper: Any,
) -> LoopRun:
    """Train with the real loop, sampler and optimizer wrapper, in file order, with a Runner of nothing else."""
    from torch.utils.data import DataLoader

    from medtune.data.collate import collate_step
    from medtune.data.sampler import StepSampler
    from medtune.engine import distributed
    from medtune.engine.loops import TrainLoop
    from medtune.engine.optim import StepOptimWrapper

    packs = packs or [[i] for i in range(len(samples))]
    names = {id(p): name for name, p in model.trainable_parameters().items()}
    optimizer = optimizer or torch.optim.SGD(list(model.trainable_parameters().values()), lr=0.1)
    run = LoopRun([], [])

    def keep_gradient(stepped: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for group in stepped.param_groups for p in group["params"] if p.grad is not None]
        run.gradients.append({names[id(p)]: p.grad.clone() for p in parameters})

    def keep_result(point: str, outputs: Any = None, **_: Any) -> None:
        if point == "after_train_iter":
            run.results.append(outputs)

    optimizer.register_step_pre_hook(keep_gradient)
    runner = SimpleNamespace(
        model=model,
        optim_wrapper=StepOptimWrapper(optimizer, **{"dtype": "fp32", **wrapper}),
        param_schedulers=[],
        call_hook=keep_result,
        raise_if_stopped=lambda: None,
        signals=(0, 0),
        inputs=SimpleNamespace(val_data=None),
    )
    loader = DataLoader(
        _Lists(samples),
        batch_sampler=StepSampler(
            packs, batch_size, accumulative_counts, False, 0, distributed.rank(), distributed.world_size()
        ),
        collate_fn=collate_step,
    )
    TrainLoop(runner, loader, max_steps=max_steps).run()
    return run


class _Lists:
    def __init__(self, samples: Sequence[dict[str, Any]]) -> None:
        self.samples = samples

    def __getitem__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [self.samples[i] for i in indices]


def ranks(count: int, function: Callable[..., Any], *args: Any, timeout: float = 120) -> list[Any]:
    """What `function(*args)`, of a module's top level, returns in each of so many gloo processes, by rank."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["medtune.engine.train", "peft"])  # imported once, for all tests
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with ProcessPoolExecutor(count, mp_context=processes) as pool:
        futures = [pool.submit(_in_rank, rank, count, port, function, args) for rank in range(count)]
        done, waiting = wait(futures, timeout=timeout, return_when=FIRST_EXCEPTION)
        if waiting:
            for process in list(pool._processes.values()):
                process.kill()
        return [future.result() for future in sorted(futures, key=lambda future: future not in done)]


def _in_rank(rank: int, count: int, port: int, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    from medtune.engine import distributed

    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in place.items()})
    with distributed.process_group("cpu"):
        return function(*args)


def write_questions(file: Path, count: int = 24, seed: int = 0) -> Path:
    """A data file of questions and answers of ragged length, one row a line."""
    rng = np.random.default_rng(seed)
    words = "aspirin fever dose pain 布洛芬 每日 mg twice after meals kidney 头痛 tablet never with wine".split()  # noqa: SIM905
    rows = [
        {
            "question": f"Case {i}: " + " ".join(rng.choice(words, rng.integers(2, 9))) + "?",
            "answer": " ".join(rng.choice(words, rng.integers(1, 16))) + ".",
        }
        for i in range(count)
    ]
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return file


SMALL_RUN = {
    "method": "lora",
    "torch_dtype": "fp32",
    "use_activation_checkpointing": False,
    "lora_r": 4,
    "lora_alpha": 8,
    "lora_dropout": 0.1,
    "max_length": 96,
    "batch_size": 1,
    "accumulative_counts": 2,
    "max_steps": 4,
    "lr": 1e-2,
    "logging_interval": 1,
    "seed": 7,
}


def small_config(model: Path, data: Path, plot: bool = False, **settings: Any) -> Any:
    """The base SFT config with the settings of a run of a second; `plot` draws the curves, which takes most of it."""
    from medtune import config
    from medtune.engine.hooks import LossPlotHook

    words = words_of(model, data, **settings)[2:]
    loaded = config.load("sft", [(name, value) for name, _, value in (word.partition("=") for word in words)])
    hooks = loaded.values["custom_hooks"]
    loaded.values["custom_hooks"] = [hook for hook in hooks if plot or hook["type"] is not LossPlotHook]
    return loaded


def small_run(work_dir: Path, model: Path, data: Path, resume: str | None = None, **settings: Any) -> Any:
    """Train `small_config` in this process; returns the Runner."""
    from medtune.engine.train import train

    return train(small_config(model, data, **settings), work_dir, resume)


def words_of(model: Path, data: Path, **settings: Any) -> list[str]:
    """The command line of the same run."""
    settings = {"pretrained_model_name_or_path": str(model), "data_path": str(data), **SMALL_RUN, **settings}
    return ["train", "sft", *(f"{k}={v if isinstance(v, str) else repr(v)}" for k, v in settings.items())]


def scalars(runner_or_dir: Any, name: str = "loss") -> list[float]:
    """A scalar's values in the order they were written, over all restarts of a run."""
    folder = Path(getattr(runner_or_dir, "work_dir", runner_or_dir))
    lines = [x for f in sorted(folder.glob("*/vis_data/scalars.json")) for x in f.read_text().splitlines()]
    return [record[name] for line in lines if name in (record := json.loads(line))]


def run_cli(*words: str, cwd: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `medtune WORDS` in a process of its own."""
    env = cli_environment(**environment)
    return subprocess.run(cli(*words), cwd=cwd, env=env, input=stdin, capture_output=True, text=True)


def cli(*words: str) -> list[str]:
    """The command that runs medtune with this Python."""
    return [sys.executable, "-m", "medtune", *words]


def cli_environment(**changes: str) -> dict[str, str]:
    """Environment of a medtune process: this checkout, one thread."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}
