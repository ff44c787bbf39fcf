"""Data files with one defect each, through `data check`, `data convert`, `data inspect` and `train --check`.

    python benchmarks/bad_input.py [CLASS ...] [--files 10] [--outside 1] [--seed 0]

Prints a line for each class of defect, with the exit codes and what must not have been, and the alarms that sound
files raised; exits with 1 if there was anything. Commands run in this process; of each class, `--outside` files are
seen by commands in processes of their own too, which takes most of the time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "data")]
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTHONPATH=str(ROOT))


def main() -> int:
    """Run the campaign."""
    import bad_input_run
    from defective_containers import clean_files
    from defective_files import CLASSES

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("classes", nargs="*", metavar="CLASS", help="default: all")
    parser.add_argument("--files", type=int, default=10, help="of each class (default: 10)")
    parser.add_argument("--outside", type=int, default=1, help="of these, in processes of their own (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chosen = [CLASSES[name] for name in args.classes or CLASSES]
    num_files, slowest, told = 0, 0.0, []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="medtune-bad-input-") as temporary:
        os.environ["MEDTUNE_CACHE"] = f"{temporary}/cache"
        print(f"{'class':<40} {'files':>5}  {'exit codes':<52} faults")
        for kind in chosen:
            codes: Counter[str] = Counter()
            faults: list[str] = []
            seeds = [(args.seed + i, False) for i in range(args.files)]
            for seed, outside in seeds + [(args.seed + i, True) for i in range(args.outside)]:
                folder = Path(temporary) / kind.name / f"{seed}{'_outside' * outside}"
                for command, ran, wrong in bad_input_run.campaign(kind, seed, folder, outside):
                    codes[f"{command} {ran.code}"] += 1
                    slowest = max(slowest, ran.seconds)
                    faults += [f"{command}, seed {seed}: {fault}: {ran.err.strip()[:160]}" for fault in wrong]
            num_files += len(seeds)
            shown = ", ".join(sorted(codes))
            print(f"{kind.name:<40} {len(seeds):>5}  {shown:<52} {len(faults)}  {kind.why}", flush=True)
            told += [f"  {kind.name}: {fault}" for fault in faults]
        print(*told, sep="\n")
        folder = Path(temporary) / "clean"
        (folder / "results").mkdir(parents=True)
        clean = clean_files(folder)
        raised = [
            line for file, words in clean.items() for line in bad_input_run.alarms(file, words, folder / "results")
        ]
    print(*raised, sep="\n")
    print(
        f"{num_files} files of {len(chosen)} classes: {len(told)} faults; {len(clean)} sound files: {len(raised)} "
        f"alarms; slowest command {slowest:.1f} s, largest memory {bad_input_run.peak_mb():.0f} MB; "
        f"{time.monotonic() - began:.0f} s in all"
    )
    return 1 if told or raised else 0


if __name__ == "__main__":
    sys.exit(main())
