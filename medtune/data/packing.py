"""Packing: which whole samples share a row. Arithmetic over lengths; no token is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from medtune.errors import DataError

MIXING_ROUNDS = 16


def plan_packs(
    lengths: Sequence[int] | np.ndarray,
    capacity: int,
    seed: int | None = None,
    groups: Sequence[int] | np.ndarray | None = None,
) -> list[list[int]]:
    """Place samples into packs of at most `capacity` tokens: best fit, longest first.

    Every sample stands in exactly one pack, whole. The same lengths, capacity, seed and groups give the same plan.

    Args:
        lengths: tokens of each sample, 1 to `capacity`.
        capacity: tokens that a pack holds.
        seed: shuffles samples of equal length and the order inside each pack, so that a pack's samples are not all
            of one length or from one place of the file; None keeps file order.
        groups: (n,) numbers from 0, a group for each sample: samples of a group share a pack, one behind the other, as
            the two answers of a preference pair must. None: each sample is a group of its own.

    Returns:
        Lists of sample indices, in a fixed order.

    Raises:
        DataError: a sample, or a group, is longer than the capacity.

    Source: best-fit decreasing bin packing (Johnson 1973), on counts per length so that it is near linear.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    if groups is not None:
        return _plan_groups(lengths, capacity, seed, np.asarray(groups, dtype=np.int64))
    if lengths.size and int(lengths.max()) > capacity:
        longest = int(lengths.argmax())
        raise DataError(f"sample {longest} has {lengths[longest]} tokens, a pack holds {capacity}.")
    order = np.arange(len(lengths))
    rng = np.random.default_rng(seed)
    if seed is not None:
        rng.shuffle(order)
    order = order[np.argsort(-lengths[order], kind="stable")]
    packs = _best_fit(order, lengths[order], capacity)
    if seed is not None:
        for pack_members in packs:
            rng.shuffle(pack_members)
    else:
        for pack_members in packs:
            pack_members.sort()
    return packs


def _best_fit(order: np.ndarray, lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Packs of the samples `order`, whose `lengths` fall: each goes where it leaves the least room.

    Samples of one length are placed together. Where a pack has room for several of them, it takes them one after
    another: what room is left is again the least.
    """
    packs: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]  # room left -> packs that have exactly that much
    rooms = _RoomSet()
    samples = order.tolist()
    firsts = np.flatnonzero(np.diff(lengths, prepend=0)).tolist()
    for first, last in pairwise([*firsts, len(samples)]):
        length = int(lengths[first])
        while first < last:
            room = rooms.smallest_at_least(length)
            if room is None:
                pack, room = len(packs), capacity
                packs.append([])
            else:
                pack = with_room[room].pop()
                if not with_room[room]:
                    rooms.remove(room)
            taken = samples[first : min(first + room // length, last)]
            packs[pack] += taken
            first += len(taken)
            left = room - length * len(taken)
            if left > 0:
                with_room[left].append(pack)
                rooms.add(left)
    return packs


def _plan_groups(lengths: np.ndarray, capacity: int, seed: int | None, groups: np.ndarray) -> list[list[int]]:
    """Packs of groups, each as its samples."""
    sizes = np.bincount(groups, lengths).astype(np.int64)
    if sizes.size and int(sizes.max()) > capacity:
        longest = int(sizes.argmax())
        raise DataError(f"samples of group {longest} have {sizes[longest]} tokens together, a pack holds {capacity}.")
    by_group = np.argsort(groups, kind="stable")
    members = [part.tolist() for part in np.split(by_group, np.cumsum(np.bincount(groups))[:-1])] if len(groups) else []
    return [[i for group in pack for i in members[group]] for pack in plan_packs(sizes, capacity, seed)]


def mix_packs(
    packs: Sequence[Sequence[int]],
    lengths: np.ndarray,
    capacity: int,
    seed: int | Sequence[int],
    groups: np.ndarray | None = None,
) -> list[list[int]]:
    """Plan anew with as many packs: samples of like length change places, as far as the capacity allows.

    In every round one sample of each pack is drawn; those nearest in length form pairs and change places where both
    packs hold the other. So an epoch's steps are as many as another's, and a pure function of the seed.

    Args:
        packs: from `plan_packs`.
        lengths: (n,) tokens of each sample.
        capacity: tokens that a pack holds.
        seed: the same seed gives the same packs.
        groups: as for `plan_packs`; a group moves as one.
    """
    if groups is not None:
        return _mix_groups(packs, lengths, capacity, seed, groups)
    rng = np.random.default_rng(seed)
    sizes = np.fromiter(map(len, packs), np.int64, len(packs))
    firsts = np.cumsum(sizes) - sizes
    members = np.fromiter((i for pack in packs for i in pack), np.int64, int(sizes.sum()))
    filled = np.add.reduceat(lengths[members], firsts) if len(members) else sizes
    rounds = MIXING_ROUNDS * max(1, int(sizes.mean())) if len(packs) > 1 else 0
    for _ in range(min(rounds, MIXING_ROUNDS * 4)):
        drawn = firsts + (rng.random(len(packs)) * sizes).astype(np.int64)
        tokens = lengths[members[drawn]]
        order = np.lexsort((rng.random(len(packs)), tokens))
        start = int(rng.integers(2))
        one, other = order[start:-1:2], order[start + 1 :: 2]
        more = tokens[other] - tokens[one]
        fits = (filled[one] + more <= capacity) & (filled[other] - more <= capacity)
        one, other, more = one[fits], other[fits], more[fits]
        members[drawn[one]], members[drawn[other]] = members[drawn[other]], members[drawn[one]]
        filled[one] += more
        filled[other] -= more
    flat = members.tolist()
    return [flat[first : first + size] for first, size in zip(firsts.tolist(), sizes.tolist(), strict=True)]


def _mix_groups(
    packs: Sequence[Sequence[int]], lengths: np.ndarray, capacity: int, seed: int | Sequence[int], groups: np.ndarray
) -> list[list[int]]:
    by_group: dict[int, list[int]] = {}
    for pack in packs:
        for i in pack:
            by_group.setdefault(int(groups[i]), []).append(i)
    of_groups = [list(dict.fromkeys(int(groups[i]) for i in pack)) for pack in packs]
    sizes = np.bincount(groups, lengths).astype(np.int64)
    return [[i for group in pack for i in by_group[group]] for pack in mix_packs(of_groups, sizes, capacity, seed)]


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
