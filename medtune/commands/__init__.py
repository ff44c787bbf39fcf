"""One small file per command: its arguments, and the few lines that call the library and print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from medtune.errors import UsageError

if TYPE_CHECKING:
    from medtune.config import Config


def load_config(words: Sequence[str], wanted: Sequence[str] = ()) -> Config:
    """Load the config named among command-line words, with the overrides among them.

    Args:
        words: of the command line.
        wanted: names to run it for; none: all of it.

    Raises:
        UsageError: no config is named, or more than one.
    """
    from medtune.config import load, split_words

    plain, overrides = split_words(words)
    if len(plain) != 1:
        named = " and ".join(map(repr, plain)) or "none"
        raise UsageError(
            f"name one config, a file or a name from `medtune list-cfg`; got {named}. Settings are NAME=VALUE."
        )
    return load(plain[0], overrides, wanted)
