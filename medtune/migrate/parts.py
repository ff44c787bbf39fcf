"""A dict of a call, `dict(type=..., ...)`, taken apart key by key, so that no key goes untold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from medtune.migrate.old_config import Name
from medtune.migrate.outcome import Code, Outcome


class Part:
    """A node of an old config. It is false where there is none.

    Args:
        node: its dict, or None.
        where: its place, as "model.llm".
        out: told of what is left.
    """

    def __init__(self, node: Any, where: str, out: Outcome) -> None:
        self.left: dict[str, Any] = dict(node) if isinstance(node, Mapping) else {}
        self.taken: dict[str, Any] = {}
        self.type = self.left.pop("type", None)
        self.where = where
        self.out = out

    def __bool__(self) -> bool:
        return bool(self.left) or self.type is not None

    @property
    def kind(self) -> str:
        """The name of its `type`, without the package."""
        if isinstance(self.type, Name):
            return self.type.last
        return self.type.text if isinstance(self.type, Code) else str(self.type or "")

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which is then no longer left."""
        value = self.left.pop(key, default)
        self.taken[key] = value
        return value

    def part(self, key: str) -> Part:
        """The node of a key."""
        return Part(self.take(key), f"{self.where}.{key}", self.out)

    def rest(self, silent: Collection[str] = (), told: Mapping[str, str] | None = None) -> None:
        """Tell of every key that was not taken.

        Args:
            silent: keys that mean nothing here.
            told: key -> what there is in its place.
        """
        for key, value in self.left.items():
            if key in silent or value in (None, False, [], {}):
                continue
            self.out.miss(f"{self.where}.{key}: {(told or {}).get(key, 'no equivalent')}")
        self.left.clear()
