"""Packing: which whole samples share a row. Arithmetic over lengths; no token is touched here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medtune.errors import DataError


def plan_packs(lengths: Sequence[int] | np.ndarray, capacity: int, seed: int | None = None) -> list[list[int]]:
    """Place samples into packs of at most `capacity` tokens: best fit, longest first.

    Every sample stands in exactly one pack, whole. The same lengths, capacity and seed give the same plan.

    Args:
        lengths: tokens of each sample, 1 to `capacity`.
        capacity: tokens that a pack holds.
        seed: shuffles samples of equal length and the order inside each pack, so that a pack's samples are not all
            of one length or from one place of the file; None keeps file order.

    Returns:
        Lists of sample indices, in a fixed order.

    Raises:
        DataError: a sample is longer than the capacity.

    Source: best-fit decreasing bin packing (Johnson 1973), on counts per length so that it is near linear.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if lengths.size and int(lengths.max()) > capacity:
        longest = int(lengths.argmax())
        raise DataError(f"sample {longest} has {lengths[longest]} tokens, a pack holds {capacity}.")
    order = np.arange(len(lengths))
    rng = np.random.default_rng(seed)
    if seed is not None:
        rng.shuffle(order)
    order = order[np.argsort(-lengths[order], kind="stable")]
    packs: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room left -> packs that have exactly that much
    rooms = _RoomSet()
    for i in order.tolist():
        length = int(lengths[i])
        room = rooms.smallest_at_least(length)
        if room is None:
            pack, room = len(packs), capacity
            packs.append([])
        else:
            pack = with_room[room].pop()
            if not with_room[room]:
                rooms.remove(room)
        packs[pack].append(i)
        left = room - length
        if left > 0:
            with_room[left].append(pack)
            rooms.add(left)
    if seed is not None:
        for pack_members in packs:
            rng.shuffle(pack_members)
    else:
        for pack_members in packs:
            pack_members.sort()
    return packs


class _RoomSet:
    """Set of small ints with a fast "smallest member at least x", as the bits of one int."""

    def __init__(self) -> None:
        self._bits = 0

    def add(self, room: int) -> None:
        self._bits |= 1 << room

    def remove(self, room: int) -> None:
        self._bits &= ~(1 << room)

    def smallest_at_least(self, room: int) -> int | None:
        above = self._bits >> room
        return room + ((above & -above).bit_length() - 1) if above else None
