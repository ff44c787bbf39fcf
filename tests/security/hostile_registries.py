"""Hostile `dataset_info.json` files: entries that name a program, another place, or something that is none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile import CANARY, ENTRY, SECRET, World, artefact
from hostile_data import GOOD
from hostile_files import ESCAPES, python

Content = dict[str, Any] | str


def registry(name: str, content: Content | Callable[[World], Content], fast: bool = False) -> None:
    """A registry beside a good file and a program; its one entry is this, unless it is a text, which is the file."""

    def make(world: World, folder: Path) -> Path:
        (folder / "train.jsonl").write_text(GOOD * 8)
        for script in ("evil.py", "train.py", f"{ENTRY}/{ENTRY}.py"):
            (folder / script).parent.mkdir(exist_ok=True)
            (folder / script).write_text(python(world))
        (folder / "link.jsonl").symlink_to(world.root / SECRET)
        found = content(world) if callable(content) else content
        text = found if isinstance(found, str) else json.dumps({ENTRY: found})
        (folder / "dataset_info.json").write_text(text)
        return folder / "dataset_info.json"

    make.__name__ = name
    artefact("registry", fast)(make)


registry("registry_script", {"script_url": "evil.py"}, fast=True)
registry("registry_script_folder", {"script_url": ENTRY})
registry("registry_program_as_a_file", {"file_name": "train.py"})
registry("registry_traversal", {"file_name": f"../../{CANARY}/../{SECRET}"}, fast=True)
registry("registry_absolute", lambda w: {"file_name": str(w.root / SECRET)})
registry("registry_home", {"file_name": "~/train.jsonl"})
registry("registry_link", {"file_name": "link.jsonl", "columns": {"prompt": "text"}}, fast=True)
registry("registry_address", {"file_name": "http://127.0.0.1:9/train.jsonl"})
registry("registry_cloud", {"cloud_file_name": "s3://bucket/train.jsonl"})
registry("registry_hub", {"hf_hub_url": "evil/data-set", "subset": "../..", "folder": "../../.."})
registry("registry_hub_is_a_path", lambda w: {"hf_hub_url": str(w.artefacts)})
registry("registry_hub_is_an_address", {"hf_hub_url": "http://127.0.0.1:9/x"})
registry("registry_other_hubs", {"ms_hub_url": "../../evil", "om_hub_url": "http://127.0.0.1:9"})
registry("registry_device", {"file_name": "../../../../../../../dev/zero"})
registry("registry_nul", {"file_name": "a\0b.jsonl"})
registry("registry_itself", {"file_name": "dataset_info.json"})
registry("registry_escapes", {"file_name": ESCAPES, ESCAPES: 1, "formatting": ESCAPES}, fast=True)
registry("registry_columns", {"file_name": "train.jsonl", "columns": {"prompt": "__class__", "response": "input"}})
registry("registry_tags", {"file_name": "train.jsonl", "formatting": "sharegpt", "tags": {"role_tag": {"a": 1}}})
registry("registry_sha1", {"file_name": "train.jsonl", "file_sha1": hashlib.sha1(b"").hexdigest()})
registry("registry_giant_number", {"file_name": "train.jsonl", "num_samples": 10**400})
registry("registry_expression", {"file_name": "train.jsonl", "num_samples": "__import__('os').system('id')"})
registry("registry_deep", '{"a":' * 100_000)
registry("registry_a_list", "[1]")
TWICE = '{"evil": {"file_name": "train.jsonl"}, "evil": {"script_url": "evil.py"}}'
registry("registry_entry_twice", TWICE)
