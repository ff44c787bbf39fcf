"""`medtune migrate`: files, exit codes, the report and the diff."""

from __future__ import annotations

import pytest
from migrate_helpers import OLD

from medtune.cli import main

TUTORIAL = str(OLD / "internlm_chat_7b_qlora_oasst1_e3.py")


def run(capsys, *words: object) -> tuple[int, str, str]:
    code = main(["migrate", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_config_is_written_and_what_changed_is_told(tmp_path, capsys):
    new = tmp_path / "folder" / "new.py"
    code, out, err = run(capsys, TUTORIAL, new)
    assert (code, err) == (0, "")
    assert '_base_ = "sft"' in new.read_text(encoding="utf-8")
    assert "optim_type PagedAdamW32bit -> paged_adamw_32bit" in out
    assert "trust_remote_code=True is refused" in out
    assert "--- " not in out


def test_the_diff_is_one_that_patch_reads(tmp_path, capsys):
    new = tmp_path / "new.py"
    code, out, _ = run(capsys, TUTORIAL, new, "--diff")
    assert code == 0
    diff = out[out.index(f"--- {TUTORIAL}") :].splitlines()
    assert diff[1] == f"+++ {new}"
    assert '+_base_ = "sft"' in diff
    assert "-from datasets import load_dataset" in diff
    added = [line[1:] for line in diff[3:] if line.startswith(("+", " "))]
    assert added == new.read_text(encoding="utf-8").splitlines()


def test_a_file_is_replaced_with_force_alone(tmp_path, capsys):
    new = tmp_path / "new.py"
    new.write_text("mine", encoding="utf-8")
    code, _, err = run(capsys, TUTORIAL, new)
    assert (code, new.read_text(encoding="utf-8")) == (2, "mine")
    assert "Give -f to replace it" in err
    assert run(capsys, TUTORIAL, new, "-f")[0] == 0
    assert new.read_text(encoding="utf-8") != "mine"


@pytest.mark.parametrize("text", ["x = eval('1')\nmodel = dict()\n", "model = dict(type=LLaVAModel)\n", "\x00", "a: b"])
def test_a_refused_config_leaves_no_file(text, tmp_path, capsys):
    old, new = tmp_path / "old.py", tmp_path / "new.py"
    old.write_text(text, encoding="utf-8")
    code, out, err = run(capsys, old, new)
    assert (code, out) == (2, "")
    assert err.startswith(f"medtune: {old}") and err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["old.py"]


def test_files_that_cannot_be_are_refused(tmp_path, capsys):
    latin = tmp_path / "latin.py"
    latin.write_bytes(b"x = '\xe9\xe9'\n")
    assert run(capsys, tmp_path / "no.py", tmp_path / "new.py")[::2] == (
        2,
        f"medtune: {tmp_path / 'no.py'}: no such file; name the config to migrate.\n",
    )
    assert "not UTF-8 at byte 5" in run(capsys, latin, tmp_path / "new.py")[2]
    assert "must end in .py" in run(capsys, TUTORIAL, tmp_path / "new.yaml")[2]
    same = tmp_path / "same.py"
    same.write_text("x = 1\n", encoding="utf-8")
    assert "are one file" in run(capsys, same, same, "-f")[2]
    assert same.read_text(encoding="utf-8") == "x = 1\n"


def test_from_names_the_kind_where_the_content_does_not_tell(tmp_path, capsys):
    old = tmp_path / "run.sh"
    old.write_text("python train.py --model_name_or_path a/b --stage sft --dataset mm\n", encoding="utf-8")
    assert "of LLaMA-Factory" in run(capsys, old, tmp_path / "a.py", "--from", "llama-factory")[1]
    code, _, err = run(capsys, old, tmp_path / "b.py", "--from", "medicalgpt")
    assert (code, "wanted a training script of MedicalGPT" in err) == (2, True)
