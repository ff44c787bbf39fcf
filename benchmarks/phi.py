"""Recall and precision of `medtune data phi-scan` by kind, on seeded records, and its speed and finds on real text.

    python benchmarks/phi.py [--records 4000] [--seed 0] [--data FOLDER] [--misses]

A gold identifier counts as found if all its letters and digits lie in spans, of whatever kind; a span counts as right
if it touches a gold one. The records are made up (tests/privacy/patient_records.py), so the figures say that forms are
covered, not how much of a hospital's own text gets through. `--data` names a folder of real text, for speed and for
what is found in it. Exits with 1 if a kind has a recall under 0.99 (names: 0.90) or a precision under 0.90. Half a
minute on one core.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "privacy")]


def measure(count: int, seed: int, show_misses: bool) -> bool:
    """Print recall and precision by kind; whether all are good enough."""
    from patient_records import bare_records, records

    from medtune.privacy.identifiers import find
    from medtune.privacy.spans import KINDS

    gold_of, found_of, named_of, spans_of, right_of = (Counter() for _ in range(5))
    for text, gold, form in records(count, seed):
        spans = find(text)
        covered = {i for _, start, end in spans for i in range(start, end)}
        for kind, start, end in gold:
            gold_of[kind] += 1
            hit = all(i in covered for i in range(start, end) if text[i].isalnum())
            found_of[kind] += hit
            named_of[kind] += any(span.kind == kind and span.start < end and span.end > start for span in spans)
            if show_misses and not hit:
                around = f"{text[max(0, start - 12) : start]}[{text[start:end]}]{text[end : end + 8]}"
                print(f"missed {kind} ({form}): {around}")
        for span in spans:
            right = any(span.start < end and span.end > start for _, start, end in gold)
            spans_of[span.kind] += 1
            right_of[span.kind] += right
            if show_misses and not right:
                print(f"wrong {span.kind} ({form}): {text[max(0, span.start - 12) : span.end + 8]}")
    print(f"{count} records, {gold_of.total()} identifiers")
    print(f"{'kind':<15}{'number':>8}{'recall':>9}{'named':>9}{'spans':>8}{'precision':>11}")
    good = True
    for kind in (kind for kind in KINDS if gold_of[kind] or spans_of[kind]):
        recall = found_of[kind] / max(1, gold_of[kind])
        precision = right_of[kind] / max(1, spans_of[kind])
        named = named_of[kind] / max(1, gold_of[kind])
        print(f"{kind:<15}{gold_of[kind]:>8}{recall:>9.4f}{named:>9.4f}{spans_of[kind]:>8}{precision:>11.4f}")
        good &= not gold_of[kind] or recall >= (0.9 if kind == "name" else 0.99)
        good &= not spans_of[kind] or precision >= 0.9
    bare = bare_records(400, seed)
    found = sum(bool([s for s in find(text) if s.kind == "name"]) for text, _, _ in bare)
    print(f"names with nothing beside them: {found} of {len(bare)} found")
    return good


def measure_text(folder: Path) -> None:
    """Print the speed on the text of a folder, and what was found in it per MB."""
    from medtune.data.readers import read_data
    from medtune.privacy.redaction import scan, texts
    from medtune.privacy.spans import KINDS

    files = sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".jsonl", ".csv", ".txt", ".gz", ".xlsx"))
    print(f"\n{'file':<44}{'MB':>7}{'MB/s':>7}  found")
    found_all: Counter[str] = Counter()
    nbytes_all, seconds_all = 0, 0.0
    for file in files:
        try:
            rows = [row.fields for row in read_data(file).each(lambda fault: None)]
        except Exception as fault:
            print(f"{file.name:<44} not read ({type(fault).__name__})")
            continue
        nbytes = sum(len(text.value.encode()) for fields in rows for text in texts(fields))
        start = time.process_time()
        found = Counter(span.kind for fields in rows for _, span in scan(fields))
        seconds = time.process_time() - start
        found_all, nbytes_all, seconds_all = found_all + found, nbytes_all + nbytes, seconds_all + seconds
        shown = " ".join(f"{kind} {found[kind]}" for kind in KINDS if found[kind])
        print(f"{file.name[:42]:<44}{nbytes / 1e6:>7.2f}{nbytes / 1e6 / max(seconds, 1e-9):>7.1f}  {shown}")
    total = " ".join(f"{kind} {count}" for kind, count in found_all.most_common())
    print(f"{'all':<44}{nbytes_all / 1e6:>7.1f}{nbytes_all / 1e6 / max(seconds_all, 1e-9):>7.1f}  {total}")


def main() -> int:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--misses", action="store_true", help="print what was missed or wrong (made-up text)")
    args = parser.parse_args()
    good = measure(args.records, args.seed, args.misses)
    if args.data:
        measure_text(args.data)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
