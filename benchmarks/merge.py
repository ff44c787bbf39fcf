"""Merging a 1.1 B random Llama in 500 MB shards: medtune beside PEFT's merge_and_unload.

    python benchmarks/merge.py [--folder TMP] [--repeat 3]

Each way runs in a process of its own, imports included. Memory is the peak of RssAnon, sampled every 10 ms: pages that
the process must hold, without the files that the kernel keeps mapped for it. Needs about 8 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHARD = "500MB"
ASSET = Path(__file__).resolve().parent.parent / "medtune" / "assets" / "med-llama-tiny"

MAKE = """
import sys, torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM, LlamaConfig
config = LlamaConfig(vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
                     num_attention_heads=32, num_key_value_heads=4)
torch.set_default_dtype(torch.bfloat16)
model = LlamaForCausalLM(config)
model.save_pretrained(sys.argv[1], max_shard_size="500MB")
model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
for name, parameter in model.named_parameters():
    if "lora_B" in name:
        torch.nn.init.normal_(parameter, std=0.02)
model.save_pretrained(sys.argv[2])
"""
MEDTUNE = """
import sys
from pathlib import Path
from medtune.merge import merge
merge(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), max_shard_size="500MB", device="cpu")
"""
PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
model = PeftModel.from_pretrained(model, sys.argv[2]).merge_and_unload()
model.save_pretrained(sys.argv[3], max_shard_size="500MB")
AutoTokenizer.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[3])
"""


def run(script: str, *words: Path) -> dict[str, float]:
    """Run a script; returns wall and CPU seconds and the peak of anonymous memory in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    child = subprocess.Popen([sys.executable, "-c", script, *map(str, words)], stderr=subprocess.DEVNULL)
    peak = 0
    while child.poll() is None:
        peak = max(peak, _anonymous_kb(child.pid))
        time.sleep(0.01)
    wall = time.monotonic() - began
    if child.returncode:
        sys.exit(f"a child failed with {child.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall": wall,
        "user": after.ru_utime - before.ru_utime,
        "system": after.ru_stime - before.ru_stime,
        "peak": peak * 1024 / 1e6,
    }


def _anonymous_kb(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def equal_share(one: Path, other: Path) -> float:
    """Share of equal values in the two results, so that a fast and wrong merge is seen."""
    from safetensors import safe_open

    where = [json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"] for folder in (one, other)]
    assert where[0].keys() == where[1].keys()
    same = total = 0
    for name in where[0]:
        tensors = []
        for folder, files in zip((one, other), where, strict=True):
            with safe_open(folder / files[name], "pt") as file:
                tensors.append(file.get_tensor(name))
        same += int((tensors[0] == tensors[1]).sum())
        total += tensors[0].numel()
    return same / total


def main() -> None:
    """Make the models, run both ways in turn, print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where to write (default: the temporary folder)")
    parser.add_argument("--repeat", type=int, default=3, help="runs per way; the fastest is shown (3)")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        base, adapter = Path(folder, "base"), Path(folder, "adapter")
        run(MAKE, base, adapter)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(ASSET / file, base / file)
        best: dict[str, dict[str, float]] = {}
        for _ in range(args.repeat):
            for name, script in (("medtune", MEDTUNE), ("peft", PEFT)):
                shutil.rmtree(Path(folder, name), ignore_errors=True)
                os.sync()
                result = run(script, base, adapter, Path(folder, name))
                best[name] = min(best.get(name, result), result, key=lambda found: found["wall"])
        shards = len(list(base.glob("*.safetensors")))
        print(f"1.1 B bf16 in {shards} shards, LoRA r=16 on all linears, {SHARD} per shard, {os.cpu_count()} cores\n")
        print("| | wall s | user s | system s | peak anonymous MB |\n|---|---|---|---|---|")
        for name, found in best.items():
            print(
                f"| {name} | {found['wall']:.1f} | {found['user']:.1f} | {found['system']:.1f} | {found['peak']:.0f} |"
            )
        print(f"\nequal values in both results: {equal_share(Path(folder, 'medtune'), Path(folder, 'peft')):.4%}")


if __name__ == "__main__":
    main()
