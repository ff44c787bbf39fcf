"""What the READMEs tell people to type exists and parses."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT

from medtune.cli import COMMANDS, _parser, _split_command
from medtune.config import builtin_configs

READMES = [ROOT / "README.md", ROOT / "README_zh-CN.md"]


def bash_lines(readme: Path) -> list[str]:
    """Command lines of the ```bash blocks, continuation lines joined."""
    blocks = re.findall(r"^```bash\n(.*?)^```", readme.read_text(encoding="utf-8"), re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def medtune_words(line: str) -> list[list[str]]:
    """Words after `medtune` (or `python -m medtune`) in each command of a line with pipes, `&&` and variables."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&")
    lexer.whitespace_split = True
    found: list[list[str]] = []
    command: list[str] = []
    for word in [*lexer, "|"]:
        if word in ("|", "&&", "||", "&"):
            while command and re.fullmatch(r"[A-Z_]+=\S*", command[0]):
                command = command[1:]
            if command[:3] == ["python", "-m", "medtune"]:
                command = command[2:]
            if command[:1] == ["medtune"]:
                found.append(command[1:])
            command = []
        else:
            command.append(word)
    return found


CASES = [
    pytest.param(words, id=f"{readme.name}:{' '.join(words)}")
    for readme in READMES
    for line in bash_lines(readme)
    for words in medtune_words(line)
]


def test_the_readmes_show_every_command():
    shown = {_split_command(case.values[0])[0] for case in CASES if case.values[0][:1] != ["help"]}
    assert set(COMMANDS) == shown


@pytest.mark.parametrize("words", CASES)
def test_each_command_of_the_readmes_parses(words):
    if words[0] == "help":
        return
    name, rest = _split_command(words)
    parser = _parser(name, importlib.import_module(COMMANDS[name]))
    try:
        parser.parse_intermixed_args(rest)
    except SystemExit as stop:
        assert stop.code in (0, None) and "--help" in rest, words


@pytest.mark.parametrize("readme", READMES, ids=lambda p: p.name)
def test_the_first_commands_are_the_demo_and_the_tests(readme):
    assert [line.split("#")[0].strip() for line in bash_lines(readme)[:2]] == [
        "bash tools/demo.sh",
        "bash tools/test.sh",
    ]


@pytest.mark.parametrize("readme", READMES, ids=lambda p: p.name)
def test_configs_and_files_that_a_readme_names_exist(readme):
    text = readme.read_text(encoding="utf-8")
    for name in re.findall(r"\b\w+_(?:full|lora|qlora)_\w+?_e\d+(?:_gpu\d+)?", text):
        assert name in builtin_configs(), name
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / link).exists(), link
    for script in re.findall(r"bash (tools/\S+?\.sh)", text):
        assert (ROOT / script).is_file(), script


def test_the_tree_of_the_readme_names_files_that_exist():
    text = READMES[0].read_text(encoding="utf-8")
    tree = text.split("## Where things are")[1].split("```")[1]
    paths = [line.split()[0] for line in tree.strip().splitlines() if not line.startswith(" " * 6)]
    assert len(paths) >= 15
    for path in paths:
        assert (ROOT / path).exists(), path


def test_commands_are_found_behind_variables_and_pipes():
    line = "echo 'a question' | NPROC_PER_NODE=2 medtune chat ./merged && python -m medtune version"
    assert medtune_words(line) == [["chat", "./merged"], ["version"]]
