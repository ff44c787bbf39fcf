"""How fast `medtune data prepare` is, the whole command counted, and how much memory all its processes take together.

    python benchmarks/prepare.py [--count 100000] [--repeat 3] [--tokenizer FOLDER] [--data FILE] [--num-proc 2]

Without --data, conversations are varied from the embedded medication-qa. The cache is emptied before each run. Wall
and CPU seconds are of the whole tree of processes; memory is the peak of the sum of PSS, and of its anonymous part.
Other work on the machine raises the wall time; the CPU seconds tell more then. At the end, the time to plan a million
lengths.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from campaign import parser

from medtune.data.packing import mix_packs, plan_packs
from medtune.data.readers import read_data

INTERVAL = 0.1


def write_conversations(file: Path, count: int) -> None:
    """Distinct conversations in XTuner's shape: sentences in another order, a number among them."""
    rows = [row.fields for row in read_data("medication-qa")]
    rng = random.Random(0)
    with file.open("w", encoding="utf-8") as stream:
        for i in range(count):
            fields = list(rows[i % len(rows)].values())
            sentences = re.split(r"(?<=[.!?]) ", str(fields[-1]))
            first = rng.randrange(len(sentences))
            answer = " ".join([*sentences[first:], *sentences[:first], f"(ref {rng.randrange(10**6)})"])
            turn = {"system": "You are a careful doctor.", "input": f"{fields[0]} [case {i}]", "output": answer}
            stream.write(json.dumps({"conversation": [turn]}, ensure_ascii=False) + "\n")


def tree(root: int) -> list[int]:
    """A process and all below it."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                waiting += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def memory(pids: list[int]) -> np.ndarray:
    """(2,) sums of PSS and of its anonymous part, in MiB."""
    total = np.zeros(2)
    for pid in pids:
        try:
            told = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        found = (re.search(rf"^{name}:\s+(\d+)", told, re.M) for name in ("Pss", "Pss_Anon"))
        total += [int(match[1]) / 1024 if match else 0 for match in found]
    return total


def measured(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Run a command; wall and CPU seconds, and the peaks of memory."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)
    peaks, ended = np.zeros(2), threading.Event()

    def watch() -> None:
        while not ended.wait(INTERVAL):
            peaks[:] = np.maximum(peaks, memory(tree(process.pid)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    said, _ = process.communicate()
    wall = time.perf_counter() - began
    ended.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report = json.loads(said)["train_dataset"]
    found = {"wall": wall, "cpu": cpu, "pss": peaks[0], "anon": peaks[1]}
    return {
        **found,
        "rows": report["num_rows"],
        "tokens": report["encoded"]["num_tokens"],
        "packs": report["num_packs"],
    }


def main(words: list[str] | None = None) -> int:
    """Measure."""
    made = parser(__doc__ or "", 100_000)
    made.add_argument("--repeat", type=int, default=3)
    made.add_argument("--tokenizer", default="med-llama-tiny")
    made.add_argument("--data", type=Path)
    made.add_argument("--num-proc", type=int, default=len(os.sched_getaffinity(0)))
    arguments = made.parse_args(words)
    with tempfile.TemporaryDirectory() as place:
        data = arguments.data or Path(place) / "conversations.jsonl"
        if not arguments.data:
            write_conversations(data, arguments.count)
        runs = []
        for i in range(arguments.repeat):
            settings = [f"data_path={data}", f"tokenizer_name_or_path={arguments.tokenizer}", "max_length=2048"]
            settings += [f"num_proc={arguments.num_proc}", "--json"]
            command = [sys.executable, "-m", "medtune", "data", "prepare", "sft", *settings]
            runs.append(measured(command, {"MEDTUNE_CACHE": f"{place}/cache{i}"}))
            print(", ".join(f"{name} {value:,.1f}" for name, value in runs[-1].items()))
    middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    rates = f"{middle['rows'] / middle['wall']:,.0f} rows/s, {middle['rows'] / middle['cpu']:,.0f} rows per CPU second"
    print(f"median of {len(runs)}: {rates}, {middle['tokens'] / middle['wall']:,.0f} tokens/s")
    print(f"peak memory of all processes: PSS {middle['pss']:,.0f} MiB, anonymous {middle['anon']:,.0f} MiB")
    lengths = np.random.default_rng(0).lognormal(5, 0.8, 1_000_000).clip(1, 2048).astype(np.int64)
    began = time.process_time()
    packs = plan_packs(lengths, 2048, 0)
    planned = time.process_time()
    mix_packs(packs, lengths, 2048, [0, 1])
    mixed = time.process_time()
    print(f"a million lengths: planned in {planned - began:.2f} s, anew for another epoch in {mixed - planned:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
