"""1,000 fake identifiers of patients in the data: how many turn up in what medtune prints and writes?

    python benchmarks/privacy.py

Every scenario is a process of its own, with its own folders for temporary files and caches: training, failing and being
killed, converting and merging, and each data command on good and on broken files, but for those that are to show text.
Output, logs, scalars, pictures, checkpoints, caches and reports are searched byte by byte, for each identifier as it is
and as JSON escapes it; files of rows that a command was asked for are not. Exits with 1 if any is found. Takes about
ten minutes on two cores.
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
NUM_MANY = 9000  # rows: more than are prepared in memory
SIGKILL, SIGTERM = 9, 15
DATA_COMMANDS = "convert split inspect check stats dedupe overlap mix phi-scan redact".split()  # noqa: SIM905


class Scene:
    """One folder in which commands run, with the data outside it."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.folder = root / name.replace(" ", "_")
        (self.folder / "temporary").mkdir(parents=True)
        self.said = ""

    def asked(self, name: str) -> str:
        """A place outside of the scene, for the rows that a command is asked to write."""
        folder = self.folder.parent.parent / "asked" / self.folder.name
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder / name)

    def command(self, *words: str, signal: int = 0, after: str = "", made: str = "") -> int:
        """Run medtune; with `signal`, send that once it has said `after`, or made a file like `made`. The exit code."""
        from helpers import cli, cli_environment

        temporary = str(self.folder / "temporary")
        caches = dict.fromkeys(("TMPDIR", "HF_HOME", "HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), temporary)
        output = self.folder / "output.txt"
        with output.open("w") as stream:
            process = subprocess.Popen(
                cli(*words), env=cli_environment(**caches), stdout=stream, stderr=stream, cwd=self.folder
            )
            while signal and process.poll() is None:
                if any(self.folder.rglob(made)) if made else after in output.read_text(errors="replace"):
                    break
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

    def prepare(self, data: Path, *more: str, signal: int = 0, made: str = "") -> int:
        """Prepare the data of the small run."""
        from helpers import words_of

        words = words_of(Path(MODEL), data, max_length=1024, max_steps=3)[1:]
        return self.command("data", "prepare", *words, *more, signal=signal, made=made)


def data_commands(one: Scene, file: str) -> dict[str, list[str]]:
    """The data commands on a file; what they report stays in the scene, the rows that they write do not."""
    out = one.asked("out.jsonl")
    return {
        "convert": ["convert", file, out],
        "split": ["split", file, "--out-dir", one.asked("parts")],
        "inspect": ["inspect", file, "--no-text", "--plot", "lengths.png"],
        "check": ["check", file, "--all", "--good", out, "--quarantine", one.asked("bad.jsonl"), "--max-length", "64"],
        "stats": ["stats", file],
        "dedupe": ["dedupe", file, out, "--report", "twins.jsonl"],
        "overlap": ["overlap", file, file, "--all"],
        "mix": ["mix", out, f"{file}*0.5", file],
        "phi-scan": ["phi-scan", file, "--all", "--fields"],
        "redact": ["redact", file, out],
    }


def data_scenarios(root: Path, data: Path, many: Path, broken: dict[str, Path]) -> list[tuple[Scene, int, bool]]:
    """The same of every data command, on the good file, and on broken ones with the traceback."""
    done = []
    for kind, file in {"good": data, **broken}.items():
        for name in DATA_COMMANDS:
            one = Scene(root, f"{name} {kind}")
            has_json = kind == "good" and name in ("inspect", "check", "stats", "overlap", "phi-scan")
            options = ["--json"] * has_json + ["--debug"] * (kind != "good")
            code = one.command("data", *data_commands(one, str(file))[name], *options)
            done.append((one, code, code in ((0, 2) if kind == "good" else (0, 1, 2))))
        one = Scene(root, f"prepare {kind}")
        code = one.prepare(file, *(() if kind == "good" else ("--debug",)))
        done.append((one, code, code in ((0,) if kind == "good" else (0, 1))))
    one = Scene(root, "prepare and keep")
    done += [(one, code := one.prepare(many), code == 0)]
    one = Scene(root, "prepare and be killed")
    code = one.prepare(many, signal=SIGKILL, made="shards/*")
    done += [(one, code, code == -SIGKILL), (one, code := one.prepare(many), code == 0)]
    return done


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
        many = write_jsonl(
            root / "many.jsonl",
            ({key: f"{text} {i}" for key, text in content[i % 100].items()} for i in range(NUM_MANY)),
        )
        broken = {
            name: write_jsonl(root / f"{name.replace(' ', '_')}.jsonl", [*half, row, *content[51:]])
            for name, row in bad.items()
        }
        assert len(found_in_text(names, data.read_bytes())) == len(names)
        found, wrong = 0, 0
        table = root / "table.csv"
        lines = ["question;answer", *(";".join(row.values()) for row in content)]
        table.write_text("\n".join([*lines[:50], f'{lines[50]};"{lines[51]}', *lines[52:]]), encoding="utf-8")
        done = scenarios(root / "scenes", data, broken)
        done += data_scenarios(root / "scenes", data, many, {**broken, "broken table": table})
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
