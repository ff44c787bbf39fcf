"""1,000 fake identifiers of patients in the data: how many turn up in what medtune prints and writes?

    python benchmarks/privacy.py

Every scenario is a process of its own, with its own folders for temporary files and caches: training, failing and being
killed, converting and merging. Output, logs, scalars, pictures and checkpoints are searched byte by byte, for each
identifier as it is and as JSON escapes it. Exits with 1 if any is found. Takes about five minutes on two cores.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "security")]

MODEL = "med-llama-tiny"
SIGKILL, SIGTERM = 9, 15


class Scene:
    """One folder in which commands run, with the data outside it."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.folder = root / name.replace(" ", "_")
        (self.folder / "temporary").mkdir(parents=True)
        self.said = ""

    def command(self, *words: str, signal: int = 0, after: str = "") -> int:
        """Run medtune; with `signal`, send that once it has said `after`. Returns the exit code."""
        from helpers import cli, cli_environment

        temporary = str(self.folder / "temporary")
        caches = dict.fromkeys(("TMPDIR", "HF_HOME", "HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), temporary)
        output = self.folder / "output.txt"
        with output.open("w") as stream:
            process = subprocess.Popen(
                cli(*words), env=cli_environment(**caches), stdout=stream, stderr=stream, cwd=self.folder
            )
            while signal and process.poll() is None and after not in output.read_text(errors="replace"):
                time.sleep(0.02)
            if signal:
                time.sleep(0.3)
                process.send_signal(signal)
            code = process.wait()
        self.said += output.read_text(errors="surrogateescape")
        return code

    def train(self, data: Path, *more: str, signal: int = 0, after: str = "saved iter_4", **settings: object) -> int:
        """Train the small run in this scene's `work`."""
        from helpers import words_of

        words = words_of(Path(MODEL), data, **{"max_length": 1024, "max_steps": 3, **settings})
        return self.command(*words, "--work-dir", "work", *more, signal=signal, after=after)


def scenarios(root: Path, data: Path, broken: dict[str, Path]) -> list[tuple[Scene, int, bool]]:
    """(scene, exit code, whether that is the one it should have) of every scenario."""
    done = []

    def scene(name: str) -> Scene:
        return Scene(root, name)

    def note(one: Scene, code: int, wanted: int) -> None:
        done.append((one, code, code == wanted))

    train = scene("train")
    code = train.train(data, val_ratio=0.2, evaluation_inputs="['Hello']", tensorboard=True)
    note(train, code, 0)
    for path in sorted((train.folder / "work").glob("*.pth"))[:1]:
        note(train, train.command("convert", "pth_to_hf", "sft", str(path), "hf"), 0)
        note(train, train.command("convert", "merge", MODEL, "hf", "merged"), 0)
    full = scene("train in full")
    note(full, full.train(data, method="full", lr=1e-3), 0)
    for name, file in broken.items():
        for debug, wanted in (((), 2), (("--debug",), 1)):
            one = scene(f"{name} {' '.join(debug)}".strip())
            note(one, one.train(file, *debug), wanted)
    for debug, wanted in (((), 2), (("--debug",), 1)):
        one = scene(f"too long {' '.join(debug)}".strip())
        note(one, one.train(data, *debug, overflow="error", max_length=32), wanted)
    for debug, wanted in (((), 3), (("--debug",), 1)):
        one = scene(f"not finite {' '.join(debug)}".strip())
        note(one, one.train(data, *debug, lr=1e38, max_norm=0, max_steps=9), wanted)
    for name, number, wanted in (("killed", SIGKILL, -SIGKILL), ("terminated", SIGTERM, 75)):
        one = scene(name)
        settings = {"save_steps": 2, "save_total_limit": 2, "evaluation_inputs": "['Hello']", "evaluation_freq": 1}
        note(one, one.train(data, signal=number, max_steps=5000, **settings), wanted)
        again = ("--resume", "auto")
        note(one, one.train(data, *again, signal=number, after="saved iter_8", max_steps=5000, **settings), wanted)
    return done


def main() -> int:
    """Run all scenarios and search what they left."""
    from identifiers import found_in_folder, found_in_text, identifiers, rows, write_jsonl

    names = identifiers(1000)
    content = rows(names, 100)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        data = write_jsonl(root / "data.jsonl", content)
        half = [*content[:50]]
        bad = {
            "no answer": {"question": content[50]["question"]},
            "empty answer": {"question": content[50]["question"], "answer": ""},
            "cut short": '{"question": "' + content[50]["question"],
            "plain text": content[50]["answer"],
        }
        broken = {
            name: write_jsonl(root / f"{name.replace(' ', '_')}.jsonl", [*half, row, *content[51:]])
            for name, row in bad.items()
        }
        assert len(found_in_text(names, data.read_bytes())) == len(names)
        found, wrong = 0, 0
        done = scenarios(root / "scenes", data, broken)
        for one in {id(one): one for one, _, _ in done}.values():
            held = {"output": found_in_text(names, one.said), **found_in_folder(names, one.folder)}
            held = {place: list_ for place, list_ in held.items() if list_}
            found += sum(map(len, held.values()))
            codes = [code for other, code, _ in done if other is one]
            print(f"{one.name:<24} exit {codes}  found {sum(map(len, held.values()))}  {list(held)[:5] or ''}")
        for one, code, right in done:
            wrong += not right
            if not right:
                print(f"{one.name}: ended with {code}: {one.said[-300:]!r}")
    print(f"{len(names)} identifiers, {len(done)} commands: {found} found; {wrong} exit codes other than wanted")
    return 1 if found or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
