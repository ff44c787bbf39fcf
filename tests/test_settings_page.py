"""docs/settings.md lists the settings of the base config: each one, with its default, in its order, and no other."""

from __future__ import annotations

import ast
import re

from conftest import ROOT

PAGE = ROOT / "docs" / "settings.md"
BASE = ROOT / "configs" / "_base_" / "sft.py"


def settings() -> list[tuple[str, str]]:
    """(name, default as written) of the assignments between the headings of PART 1 and PART 2."""
    text = BASE.read_text(encoding="utf-8")
    first, last = (text[: text.index(f"PART {n} ")].count("\n") + 1 for n in (1, 2))
    assigned = [node for node in ast.parse(text).body if isinstance(node, ast.Assign) and first < node.lineno < last]
    return [(node.targets[0].id, ast.get_source_segment(text, node.value)) for node in assigned]


def test_the_page_lists_every_setting_with_its_default_and_no_other():
    rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \| .+ \|$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(rows) > 50
    assert rows == settings()
