"""The table of numerics traps names, for each, tests that exist and whose docstrings name the trap and its fault."""

from __future__ import annotations

import ast
import functools
import re

import pytest
from conftest import ROOT

PAGE = ROOT / "docs" / "design" / "numerics.md"
TRAPS = [f"T{number}" for number in range(1, 27)]


@functools.cache
def rows() -> dict[str, list[str]]:
    """The table's cells by trap."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if re.match(r"\| T\d+ \|", line)]
    return {cells[0]: cells for cells in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)}


@functools.cache
def docstrings(file: str) -> dict[str, str]:
    """Docstrings of a file's tests, by name."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    tests = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    return {test.name: ast.get_docstring(test) or "" for test in tests}


def named_tests(cell: str) -> list[list[str]]:
    """[file, function] of each test in a cell."""
    return re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", cell)


def names_the_trap(docstring: str, trap: str) -> bool:
    """True for "T5: fails when ...", "T10, T11: fails when ..."."""
    head, _, fault = docstring.partition(":")
    return trap in head.split(", ") and fault.split()[:2] in (["fails", "when"], ["shows", "that"])


def test_every_trap_has_its_row_with_nothing_left_empty():
    assert list(rows()) == TRAPS
    assert all(len(cells) == 5 and all(cells) for cells in rows().values())


@pytest.mark.parametrize("trap", TRAPS)
def test_each_test_in_the_table_exists_and_says_which_trap_and_fault_it_finds(trap):
    cell = rows()[trap][3]
    found = named_tests(cell)
    assert len(found) == cell.count("::") > 0
    for file, function in found:
        assert function in docstrings(file), f"{file} has no {function}"
        assert names_the_trap(docstrings(file)[function], trap), f"{function}: its docstring does not name {trap}"


def test_each_test_that_names_a_trap_is_in_the_table():
    listed = {(trap, *test) for trap in rows() for test in named_tests(rows()[trap][3])}
    for path in sorted((ROOT / "tests" / "numerics").glob("test_*.py")):
        file = path.relative_to(ROOT).as_posix()
        for function, docstring in docstrings(file).items():
            for trap in re.findall(r"T\d+", docstring.partition(":")[0]):
                assert (trap, file, function) in listed


def test_each_file_that_avoids_a_trap_exists():
    for cells in rows().values():
        for file in re.findall(r"`([\w/]+\.py)`", cells[2]):
            assert (ROOT / "medtune" / file).is_file(), f"{cells[0]}: {file}"


def test_a_docstring_without_the_trap_or_the_fault_is_not_taken():
    assert names_the_trap("T10, T11: fails when a BOS stands twice.", "T11")
    assert not any(names_the_trap(f"{words}: fails when x", "T1") for words in ("T11", "", "T2, T10"))
    assert not names_the_trap("T1: a gradient.", "T1")
