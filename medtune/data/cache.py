"""Where prepared data is kept, under which key, and who may write there.

A key is sha256 of all that the result depends on: the data's bytes, the tokenizer, the template, the settings and the
code that reads, renders and encodes. Where one of these cannot be told, there is no key, and nothing is kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medtune.errors import UsageError
from medtune.files import remove, sha256

PACKAGE = Path(__file__).resolve().parent
POLL_SECONDS = 0.2
LIBRARIES = ("jinja2", "numpy", "openpyxl", "pyarrow", "tokenizers", "transformers")
"""What reads, renders and tokenises besides our own code."""


def cache_folder() -> Path:
    """The private folder of prepared data, below $MEDTUNE_CACHE or ~/.cache/medtune: token ids are the data's text.

    Raises:
        UsageError: it is another user's, or a link: what lies there would be trained on, or written over.
    """
    root = Path(os.environ.get("MEDTUNE_CACHE") or "~/.cache/medtune").expanduser()
    folder = root / "prepared"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise UsageError(f"{folder}: a link, or another user's folder. Set MEDTUNE_CACHE to a folder of your own.")
    for made in (root, folder):
        with contextlib.suppress(PermissionError):  # a shared root that another user made
            made.chmod(0o700)
    return folder


def is_own(path: Path) -> bool:
    """Tell a file or folder that is there, this user's alone to the bottom, without links, pipes or devices."""
    try:
        found = [place.lstat() for place in (path, *path.rglob("*"))]
    except OSError:
        return False
    user = os.getuid()
    return all(f.st_uid == user and (stat.S_ISDIR(f.st_mode) or stat.S_ISREG(f.st_mode)) for f in found)


def content_key(**parts: Any) -> str | None:
    """Hex sha256 of what a result depends on, or None if a part is None: it cannot be told."""
    if any(part is None for part in parts.values()):
        return None
    text = json.dumps({**parts, "code": _code_version()}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def tokenizer_identity(tokenizer: Any) -> str | None:
    """sha256 of a tokenizer's whole state; None for those written in Python, whose state is spread over files."""
    if not tokenizer.is_fast:
        return None
    state = [tokenizer.backend_tokenizer.to_str(), sorted(map(str, tokenizer.special_tokens_map.items()))]
    state += [type(tokenizer).__name__, sorted((i, repr(t)) for i, t in tokenizer.added_tokens_decoder.items())]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()


def template_identity(template: Any) -> Any:
    """What a `Template` or `TokenizerTemplate` writes."""
    return asdict(template) if is_dataclass(template) and not isinstance(template, type) else template.chat_template


def function_identity(function: str | Callable[..., Any] | None) -> str | None:
    """Name of a format or of medtune's own function, "" for detection, None for the user's: what it reads is not known.

    >>> function_identity(None), function_identity("alpaca"), function_identity(len)
    ('', 'alpaca', None)
    """
    if function is None or isinstance(function, str):
        return function or ""
    module = getattr(function, "__module__", "") or ""
    own = module.startswith("medtune.data.") and "<" not in getattr(function, "__qualname__", "<")
    return f"{module}.{function.__qualname__}" if own else None


def files_identity(path: Path, how: str) -> Any:
    """Name and sha256 of a file, or of all files of a folder, and how they are read; None for what is elsewhere."""
    if path.is_file():
        return {"files": [[path.name, sha256(path)]], "how": how}
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {"files": [[file.relative_to(path).as_posix(), sha256(file)] for file in files], "how": how}
    return None


def data_identity(rows: Any) -> Any:
    """What tells a data set's content from another's, as `Rows.identity` says; None for others."""
    tell = getattr(rows, "identity", None)
    return tell() if callable(tell) else None


@lru_cache(maxsize=1)
def _code_version() -> Mapping[str, str]:
    """sha256 of the code of the data layer, and versions of the libraries that it uses."""
    digest = hashlib.sha256()
    for file in [*sorted(PACKAGE.rglob("*.py")), PACKAGE.parent / "limits.py"]:
        digest.update(f"{file.name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    found = {"medtune.data": digest.hexdigest()}
    for library in LIBRARIES:
        with contextlib.suppress(ModuleNotFoundError):
            found[library] = version(library)
    return found


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Hold a lock that one process has at a time; it falls with its holder, whatever ends that.

    Yields False where the file system has no locks: what follows must then be the process's own.
    """
    if file.is_dir() or not is_own(file):
        remove(file)
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        waiting = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waiting:
                    logging.getLogger(__name__).info("another process prepares this data; waiting for it")
                waiting = True
                time.sleep(POLL_SECONDS)
            except OSError:
                yield False
                return
            else:
                yield True
                return
    finally:
        os.close(handle)
