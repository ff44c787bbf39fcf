"""The command line: which command runs, what a fault looks like, and the exit code it gives the shell."""

from __future__ import annotations

import errno
import importlib
import subprocess
import sys

import pytest
from conftest import ROOT

from medtune import __version__
from medtune.cli import COMMANDS, main
from medtune.config import builtin_configs, compose
from medtune.errors import EnvironmentFault, Interrupted, MedtuneError, Stopped, UsageError

TINY = "med_llama_tiny_lora_medqa_e3"


@pytest.fixture
def run(capsys):
    """Run a command line in this process; returns exit code, standard output and standard error."""

    def run_words(*words: str) -> tuple[int, str, str]:
        try:
            code = main(list(words))
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return code, out, err

    return run_words


@pytest.fixture
def refused(run):
    """Run a command line that must fail on one line; returns that line."""

    def run_words(*words: str, code: int = 2) -> str:
        got, out, err = run(*words)
        assert got == code, (out, err)
        assert err.count("\n") == 1, err
        assert err.startswith("medtune")
        assert "Traceback" not in err
        return err

    return run_words


@pytest.fixture
def failing(monkeypatch):
    """Make `medtune version` raise."""

    def fail_with(fault: BaseException) -> None:
        def raise_it(_: object) -> None:
            raise fault

        monkeypatch.setattr(importlib.import_module(COMMANDS["version"]), "main", raise_it)

    return fail_with


# ---------------------------------------------------------------- which command


@pytest.mark.parametrize("words", [[], ["help"], ["-h"], ["--help"]])
def test_without_a_command_every_command_is_listed_with_its_summary(run, words):
    code, out, err = run(*words)
    assert (code, err) == (0, "")
    for name, module in COMMANDS.items():
        summary = (importlib.import_module(module).__doc__ or "").splitlines()[0]
        assert any(line.split() == [*name.split(), *summary.split()] for line in out.splitlines())


@pytest.mark.parametrize("words", [["version"], ["-v"], ["--version"]])
def test_version_prints_the_version_alone(run, words):
    assert run(*words) == (0, f"{__version__}\n", "")


def test_python_m_medtune_is_the_same_command():
    done = subprocess.run([sys.executable, "-m", "medtune", "version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")
    assert subprocess.run([sys.executable, "-m", "medtune", "trian"], cwd=ROOT, capture_output=True).returncode == 2


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["trian", "x.py"], "unknown command 'trian'. Did you mean 'train'"),
        (["lst-cfg"], "unknown command 'lst-cfg'. Did you mean 'list-cfg'"),
        (["convert", "merg", "a"], "unknown command 'convert merg'. Did you mean 'convert merge'"),
        (["convert", "pth-to-hf"], "Did you mean 'convert pth_to_hf'"),
        (["--debug"], "unknown command '--debug'"),
        (["xyzzy"], "unknown command 'xyzzy'. `medtune help`"),
    ],
)
def test_an_unknown_command_is_answered_with_the_nearest(refused, words, near):
    assert near in refused(*words)


@pytest.mark.parametrize(("words", "code"), [(["convert"], 2), (["convert", "--help"], 0), (["data", "help"], 0)])
def test_a_group_alone_lists_its_commands(run, words, code):
    got, out, _ = run(*words)
    assert got == code
    assert [line.split()[2] for line in out.splitlines()] == [
        n.split()[1] for n in COMMANDS if n.split()[0] == words[0]
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_examples_that_begin_with_its_name(run, name):
    code, out, _ = run(*name.split(), "--help")
    assert code == 0
    examples = out.split("examples:\n")[1].splitlines()
    assert any(line.strip().startswith(f"medtune {name}") for line in examples)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["list-cfg", "--patern", "x"], "unrecognized arguments: --patern x (see `medtune list-cfg --help`)"),
        (["list-cfg", "-p"], "argument -p/--pattern: expected one argument"),
        (["copy-cfg", TINY], "the following arguments are required: FOLDER"),
        (["train", TINY, "--seed", "many"], "argument --seed: invalid int value: 'many'"),
        (["train", TINY, "--res", "auto"], "unrecognized arguments: --res auto"),
        (["train"], "name one config"),
    ],
)
def test_a_broken_option_is_one_line_that_names_the_help(refused, words, wanted):
    assert wanted in refused(*words)


# ---------------------------------------------------------------- configs


def listed(out: str) -> list[str]:
    """Names that list-cfg prints below their families."""
    return [line[2:] for line in out.splitlines() if line.startswith("  ")]


def test_list_cfg_prints_names_and_p_narrows_them(run):
    assert sorted(listed(run("list-cfg")[1])) == list(builtin_configs())
    narrowed = listed(run("list-cfg", "-p", "QLoRA")[1])
    assert sorted(narrowed) == [name for name in builtin_configs() if "qlora" in name]
    assert 0 < len(narrowed) < len(builtin_configs())


def test_a_pattern_that_matches_nothing_says_so(run):
    code, out, _ = run("list-cfg", "-p", "gpt9")
    assert code == 0
    assert "'gpt9'" in out


def test_copy_cfg_copies_and_refuses_to_overwrite_without_f(run, refused, tmp_path):
    folder = tmp_path / "new" / "deep"
    assert run("copy-cfg", TINY, str(folder))[0] == 0
    copy = folder / f"{TINY}_copy.py"
    assert copy.read_text(encoding="utf-8") == builtin_configs()[TINY].read_text(encoding="utf-8")
    copy.write_text("# mine\n")
    assert f"{copy} exists; -f overwrites it" in refused("copy-cfg", TINY, str(folder))
    assert copy.read_text() == "# mine\n"
    assert run("copy-cfg", TINY, str(folder), "-f", "--expand")[0] == 0
    assert copy.read_text(encoding="utf-8") == compose(builtin_configs()[TINY])


def test_copy_cfg_into_a_file_or_of_an_unknown_config_leaves_nothing(refused, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    assert "is a file; name a folder" in refused("copy-cfg", TINY, str(file))
    assert f"no config named '{TINY}x'. Did you mean '{TINY}'" in refused("copy-cfg", f"{TINY}x", str(tmp_path / "new"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["med_llama_tiny_lora_medqa"], f"Did you mean '{TINY}'"),
        (["./nowhere.py"], "no config file './nowhere.py'"),
        ([TINY, "lrr=1"], "the config has no setting 'lrr'. Did you mean 'lr'"),
        ([TINY, "--cfg-options", "lr=1", "max_lenght=3"], "no setting 'max_lenght'. Did you mean 'max_length'"),
        ([TINY, "lr=fast"], "lr=fast: wanted a number"),
        ([TINY, "model.lora.rr=1"], "model.lora has no 'rr'. Did you mean 'r'"),
        ([TINY, "./other.py"], "name one config"),
        (["lr=1"], "name one config"),
        ([TINY, "data_path=./nowhere.xlsx"], "./nowhere.xlsx: no such file"),
        ([TINY, "prompt_template=chatmll"], "unknown prompt_template 'chatmll'. Did you mean 'chatml'"),
        ([TINY, "--resume", "nowhere/epoch_1.pth"], "nowhere/epoch_1.pth: no such checkpoint"),
    ],
)
def test_a_run_that_cannot_start_says_why_on_one_line_and_writes_nothing(refused, tmp_path, monkeypatch, words, wanted):
    monkeypatch.chdir(tmp_path)
    assert wanted in refused("train", *words)
    assert not list(tmp_path.iterdir())


def test_several_faults_are_one_line_each(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run("train", TINY, "overflow=trunk", "model.llm.torch_dtype=fp61")
    first, *faults = err.splitlines()
    assert (code, first) == (2, "medtune: 2 faults in the config:")
    assert [fault.split(":")[0].strip() for fault in faults] == [
        "model.llm.torch_dtype",
        "train_dataset.overflow, val_dataset.overflow",
    ]


def test_settings_stand_anywhere_on_the_line(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = tmp_path / "a, b=c.jsonl"
    rows.write_text('{"input": "Why?", "output": "So."}\n' * 3, encoding="utf-8")
    code, out, err = run("train", "max_length=64", "--check", TINY, f"data_path={rows}", "--cfg-options", "seed=3")
    assert (code, err) == (0, "")
    assert "rows 3, samples 3" in out


# ---------------------------------------------------------------- faults and exit codes


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (MedtuneError("m"), 1),
        (UsageError("m"), 2),
        (EnvironmentFault("m"), 3),
        (Stopped("m"), 75),
        (Interrupted("m"), 130),
    ],
)
def test_a_fault_on_purpose_is_its_message_and_its_exit_code(refused, failing, fault, code):
    failing(fault)
    assert refused("version", code=code) == "medtune: m\n"


@pytest.mark.parametrize(
    ("fault", "code", "wanted"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left", "/full/x"), 3, "the disk is full: /full/x. Free some space"),
        (RuntimeError("serializing: I/O error: No space left on device (os error 28)"), 3, "the disk is full"),
        (MemoryError(), 3, "out of memory. Lower batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), 3, "out of memory"),
        (FileExistsError(errno.EEXIST, "File exists", "afile"), 2, "afile: a file stands where a folder is wanted"),
        (OSError(errno.EDQUOT, "Quota", "/full/x"), 3, "the disk is full: /full/x"),
        (PermissionError(errno.EACCES, "Denied", "/root/x"), 3, "no permission: /root/x"),
        (type("OutOfMemoryError", (RuntimeError,), {})("CUDA\nlong"), 3, "the GPU is out of memory. Lower batch_size"),
        (ValueError("one\ntwo"), 1, "internal fault, ValueError: one two (run again with --debug"),
        (ValueError(), 1, "internal fault, ValueError: ValueError"),
    ],
)
def test_any_other_fault_is_one_line_too(refused, failing, fault, code, wanted):
    failing(fault)
    assert wanted in refused("version", code=code)


@pytest.mark.parametrize("fault", [UsageError("m"), ValueError("m"), KeyboardInterrupt()])
def test_debug_shows_the_traceback(failing, fault):
    failing(fault)
    with pytest.raises(type(fault)):
        main(["version", "--debug"])


def test_a_reader_that_leaves_early_is_no_fault(tmp_path):
    line = f"{sys.executable} -c 'from medtune.cli import main; raise SystemExit(main())' list-cfg | head -n 2"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert listed(done.stdout) == sorted(builtin_configs())[:1]
