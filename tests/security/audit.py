# ruff: noqa: PTH114, PTH118, PTH119, PTH120
"""Becomes `sitecustomize` of a process under test: writes down what no file that medtune reads may make it do.

Events go to the file AUDIT_LOG, one a line. Writing is allowed below the folders of AUDIT_WRITABLE; code must not come
from below AUDIT_FOREIGN; AUDIT_CANARY is a word that hostile code holds.
"""

from __future__ import annotations

import os
import sys
from typing import Any

ALWAYS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.startfile", "os.fork", "os.forkpty", "pty.spawn")
ALWAYS += ("pickle.find_class", "builtins.input", "webbrowser.open", "urllib.Request", "ftplib.connect")
# Name -> which arguments are paths that are written.
WRITERS = {"os.mkdir": 1, "os.remove": 1, "os.rmdir": 1, "os.rename": 2, "os.symlink": 2, "os.link": 2, "os.chmod": 1}
WRITERS |= {"os.truncate": 1, "shutil.rmtree": 1, "shutil.move": 2, "shutil.unpack_archive": 2, "shutil.chown": 1}
FOR_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
READER = (sys.executable, "-m", "medtune.importer")  # medtune's own process for old checkpoints, audited like this one
FORKER = "/medtune/data/prepare.py"  # its processes are forked from this one, hook and all


def _is_forked_to_prepare() -> bool:
    """Whether the module that encodes rows in several processes is among those whose functions are running."""
    frame: Any = sys._getframe(1)
    while frame and not frame.f_code.co_filename.endswith(FORKER):
        frame = frame.f_back
    return frame is not None


class Audit:
    """The hook and what it needs."""

    def __init__(self) -> None:
        self.log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.writable = tuple(map(os.path.realpath, os.environ["AUDIT_WRITABLE"].split(os.pathsep)))
        self.foreign = os.environ["AUDIT_FOREIGN"]
        self.canary = os.environ["AUDIT_CANARY"]
        self.busy = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.busy:
            return
        self.busy = True
        try:
            said = self.violation(event, arguments)
            if said:
                os.write(self.log, f"{event}\t{said}\n".replace("\n", " ").encode("utf-8", "replace").rstrip() + b"\n")
        finally:
            self.busy = False

    def violation(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        """What to write down about an event, or None."""
        if event == "os.fork" and _is_forked_to_prepare():
            return None
        if event in ALWAYS or event.startswith("socket."):
            return repr(arguments)[:300]
        if event == "subprocess.Popen" and arguments[0] == "fc-list":  # matplotlib looks for fonts, once
            return None
        if event == "subprocess.Popen":
            own = tuple(arguments[1][:3]) == READER if isinstance(arguments[1], (list, tuple)) else False
            return None if own else repr(arguments[:2])[:300]
        if event == "exec":
            return self.foreign_code(arguments[0])
        if event == "ctypes.dlopen":
            return str(arguments[0]) if self.foreign in str(arguments[0]) else None
        if event == "open":
            path, mode, flags = arguments
            writes = (isinstance(flags, int) and flags & FOR_WRITING) or (
                isinstance(mode, str) and set(mode) & set("wax+")
            )
            return self.outside(path) if writes else None
        if event in WRITERS:  # all but these act on a link itself
            follow = event in ("os.chmod", "os.truncate")
            return next((said for path in arguments[: WRITERS[event]] if (said := self.outside(path, follow))), None)
        return None

    def foreign_code(self, code: Any) -> str | None:
        """Code of a file below AUDIT_FOREIGN, or that holds the canary; a chat template in its sandbox may hold it."""
        if code.co_filename.startswith(self.foreign):
            return code.co_filename
        if code.co_filename.startswith(("<template>", "<config ")):  # a config may hold any text, as a value
            return code.co_filename if self.canary in repr(code.co_names) else None
        return code.co_filename if self.canary in repr((code.co_consts, code.co_names)) else None

    def outside(self, path: Any, follow: bool = True) -> str | None:
        """A path that is not below the writable folders; of a link, where it leads."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return None
        path = os.fsdecode(path)
        real = os.path.join(os.path.realpath(os.path.dirname(path) or "."), os.path.basename(path))
        real = os.path.realpath(path) if follow and os.path.islink(real) else real
        return None if real.startswith((*self.writable, "/dev/")) else real


if "AUDIT_LOG" in os.environ:
    sys.addaudithook(Audit())
