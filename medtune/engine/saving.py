"""Who saves: the training's own thread, or one beside it that writes while training goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Saver:
    """Runs one save at a time. A fault of a save in the background is raised by the next call of any method but `join`.

    The thread ends with the process: a save that was cut off leaves what a kill leaves, which nothing reads.
    """

    def __init__(self) -> None:
        self.in_background = False
        self._thread: threading.Thread | None = None
        self._fault: BaseException | None = None

    def run(self, save: Callable[[], None]) -> None:
        """Save, here or in the background; waits for the save before."""
        self.wait()
        if not self.in_background:
            save()
            return
        self._thread = threading.Thread(target=self._run, args=(save,), name="medtune-save", daemon=True)
        self._thread.start()

    def _run(self, save: Callable[[], None]) -> None:
        try:
            save()
        except BaseException as fault:
            self._fault = fault

    def check(self) -> None:
        """Raise the fault of a save that has ended; costs nothing otherwise."""
        if self._thread is not None and not self._thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait for the save in flight, and raise its fault."""
        self.join()
        fault, self._fault = self._fault, None
        if fault is not None:
            raise fault

    def join(self) -> None:
        """Wait for the save in flight, whatever becomes of it: another fault is already on its way."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
