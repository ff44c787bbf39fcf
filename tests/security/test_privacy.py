"""Identifiers of patients stay in the data: none in output, logs, scalars, temporary files or checkpoints' text.

A slice with fewer identifiers; `benchmarks/privacy.py` has 1,000, and every scenario in a process of its own.
"""

from __future__ import annotations

import signal
import stat
import subprocess
import time
import traceback

import pytest
from helpers import cli, cli_environment, tiny_llama_folder, words_of
from identifiers import found_in_folder, found_in_text, identifiers, rows, write_jsonl
from openpyxl import Workbook

from medtune.cli import main

NAMES = identifiers(120)
ROWS = rows(NAMES, 24)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_llama_folder(tmp_path_factory.mktemp("model"))


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary files and caches go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    for name in ("TMPDIR", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def run(model, tmp_path, temporary, capfd):
    """Train in this process; returns the exit code and all that was said, the traceback of --debug included."""

    def run_words(data, *more: str, **settings) -> tuple[int, str]:
        words = words_of(model, data, **{"max_steps": 2, "max_length": 512, **settings})
        words += ["--work-dir", str(tmp_path / "work"), *more]
        code, trace = 1, ""
        try:
            code = main(words)
        except Exception:
            trace = traceback.format_exc()
        out, err = capfd.readouterr()
        return code, out + err + trace

    return run_words


@pytest.fixture
def assert_private(tmp_path, temporary):
    def check(said: str) -> None:
        assert found_in_text(NAMES, said) == [], said
        assert found_in_folder(NAMES, tmp_path / "work", temporary) == {}

    return check


def test_the_search_finds_what_it_looks_for(tmp_path):
    """The control: the data itself holds every identifier, in whatever form it is written."""
    write_jsonl(tmp_path / "a.jsonl", ROWS)
    assert found_in_folder(NAMES, tmp_path) == {"a.jsonl": NAMES}
    assert found_in_text(NAMES, ascii(ROWS)) == NAMES


def test_a_training_run_leaves_no_identifier_behind(run, assert_private, tmp_path):
    code, said = run(write_jsonl(tmp_path / "data.jsonl", ROWS), val_ratio=0.2, evaluation_inputs="['Hello']")
    assert code == 0 and "rows 24" in said
    assert (tmp_path / "work" / "loss.png").is_file() and (tmp_path / "work" / "last_checkpoint").is_file()
    assert_private(said)


def test_what_training_writes_is_its_owners_alone(run, tmp_path):
    work = tmp_path / "work"
    assert run(write_jsonl(tmp_path / "data.jsonl", ROWS), tensorboard=True, evaluation_inputs="['Hello']")[0] == 0
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [work, *work.rglob("*")]}
    assert {str(p): oct(m) for p, m in modes.items() if m != (0o700 if p.is_dir() else 0o600)} == {}
    assert len(modes) > 20


BROKEN = {
    "no answer": {"question": ROWS[12]["question"]},
    "an empty answer": {"question": ROWS[12]["question"], "answer": " "},
    "an answer that is a list": {"question": ROWS[12]["question"], "answer": [ROWS[12]["answer"]]},
    "an answer that is a number": {"question": ROWS[12]["question"], "answer": float("inf")},
    "another shape": {"messages": [{"role": ROWS[12]["answer"], "content": ROWS[12]["question"]}]},
    "a list": [ROWS[12]["question"]],
    "text": ROWS[12]["question"],
    "cut short": '{"question": "' + ROWS[12]["question"],
    "a control character": '{"question": "' + ROWS[12]["question"] + '\x01"}',
    "half a surrogate": '{"question": "' + ROWS[12]["question"] + '\\ud800", "answer": "x"}',
    "not JSON": ROWS[12]["question"] + "," + ROWS[12]["answer"],
}


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["", "debug"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_row_is_named_by_its_place_and_never_quoted(name, debug, run, assert_private, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", [*ROWS[:12], BROKEN[name], *ROWS[13:]])
    code, said = run(data, *debug)
    assert code in (1, 2) and "data.jsonl:13" in said
    assert ("Traceback" in said) == bool(debug)
    assert_private(said)


def test_a_row_that_is_too_long_is_not_quoted(run, assert_private, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", ROWS)
    for debug in ((), ("--debug",)):
        code, said = run(data, *debug, overflow="error", max_length=16)
        assert code in (1, 2) and "data.jsonl:1" in said
        assert_private(said)


def test_a_loss_that_is_not_finite_names_rows_by_their_place(run, assert_private, tmp_path):
    code, said = run(write_jsonl(tmp_path / "data.jsonl", ROWS), lr=1e38, max_norm=0, max_steps=6)
    assert code == 3 and "data.jsonl:" in said
    assert_private(said)


def test_a_map_function_that_fails_on_a_row_does_not_quote_it(run, assert_private, tmp_path, monkeypatch):
    """Its own message may hold the row; KeyError and ValueError quote what they fail on."""
    (tmp_path / "patients_map_fn.py").write_text("def convert(row):\n    {}[row['question']]\n", encoding="utf-8")
    config = tmp_path / "mine.py"
    config.write_text(
        "from patients_map_fn import convert\n_base_ = 'sft'\ndataset_map_fn = convert\n", encoding="utf-8"
    )
    data = write_jsonl(tmp_path / "data.jsonl", ROWS)
    for debug in ([], ["--debug"]):
        said = failure_of(["train", str(config), f"data_path={data}", *debug])
        assert "data.jsonl:1" in said
        assert_private(said)


def failure_of(words: list[str]) -> str:
    import contextlib
    import io

    with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(err):
        try:
            assert main(words) == 2
        except Exception:
            return err.getvalue() + traceback.format_exc()
    return err.getvalue()


@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["", "debug"])
@pytest.mark.parametrize("command", ["convert", "split"])
def test_tables_that_are_broken_are_not_quoted(command, debug, assert_private, tmp_path):
    csv, xlsx = tmp_path / "data.csv", tmp_path / "data.xlsx"
    lines = ["question;answer", *(";".join(row.values()) for row in ROWS)]
    csv.write_text("\n".join([*lines[:12], f'{lines[12]};"{lines[13]}', *lines[13:]]), encoding="utf-8")
    book = Workbook()
    for row in (["question", "answer"], *(list(row.values()) for row in ROWS), [ROWS[0]["question"], None]):
        book.active.append(row)
    book.save(xlsx)
    out = {"convert": [str(tmp_path / "work" / "out.jsonl")], "split": ["--out-dir", str(tmp_path / "work")]}[command]
    for file, columns in (
        (csv, ("question", "answer")),
        (xlsx, ("question", "nothing")),
        (xlsx, ("question", "answer")),
    ):
        options = ["--input-column", columns[0], "--output-column", columns[1]]
        if command == "split" and file == xlsx and columns[1] == "answer":
            continue  # a split takes rows without an answer
        assert_private(failure_of(["data", command, str(file), *out, *options, *debug]))


@pytest.mark.parametrize("suffix", ["csv", "xlsx"])
def test_a_table_without_a_header_row_is_not_quoted(suffix, run, assert_private, tmp_path):
    """Its first row stands where the header should: what looks like data is not listed as columns."""
    file = tmp_path / f"data.{suffix}"
    cells = [list(row.values()) for row in ROWS]
    book = Workbook()
    for row in cells:
        book.active.append(row)
    if suffix == "csv":
        file.write_text("".join(";".join(row) + "\n" for row in cells), encoding="utf-8")
    else:
        book.save(file)
    for columns in (None, "dict(input='question', output='answer')"):
        for debug in ((), ("--debug",)):
            code, said = run(file, *debug, **({"data_columns": columns} if columns else {}))
            assert code in (1, 2)
            assert_private(said)


def test_text_of_another_encoding_is_not_quoted(run, assert_private, tmp_path):
    data = write_jsonl(tmp_path / "data.jsonl", ROWS)
    data.write_bytes(data.read_bytes().replace("上官".encode(), "上官".encode("gb18030")))
    for debug in ((), ("--debug",)):
        code, said = run(data, *debug)
        assert code in (1, 2) and "data.jsonl:" in said
        assert_private(said)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_a_killed_run_leaves_no_identifier_behind(number, model, tmp_path, temporary, assert_private):
    data = write_jsonl(tmp_path / "data.jsonl", ROWS)
    words = words_of(model, data, max_steps=100_000, max_length=512, save_steps=2, save_total_limit=1)
    process = subprocess.Popen(
        cli(*words, "--work-dir", str(tmp_path / "work")),
        env=cli_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 120
    while not (tmp_path / "work" / "last_checkpoint").exists():
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    assert_private(said)
