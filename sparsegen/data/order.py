"""The order of an epoch: a pure function of (seed, epoch), read in runs that suit the file.

Positions are cut into blocks that follow the file's own chunks. An epoch shuffles the blocks, joins them to windows of
bounded size, and shuffles the events inside each window. One window is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rows", "Window", "batch_bounds", "windows"]

Runs = list[tuple[int, int]]


class Rows:
    """A rising selection of a file's rows: all of them, without storing them, or some.

    Args:
        total: Rows of the file.
        chosen: Rising row numbers, or None for all.
    """

    def __init__(self, total: int, chosen: NDArray[np.int64] | None = None) -> None:
        self.total = total
        if chosen is not None and len(chosen) and np.array_equal(chosen, np.arange(chosen[0], chosen[-1] + 1)):
            self.start, self.stop = int(chosen[0]), int(chosen[-1]) + 1
            self.chosen = None
        else:
            self.start, self.stop = 0, total if chosen is None else len(chosen)
            self.chosen = chosen

    def __len__(self) -> int:
        return self.stop - self.start

    def select(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Row numbers at these positions."""
        return positions + self.start if self.chosen is None else self.chosen[positions]

    def all(self) -> NDArray[np.int64]:
        """Every row number."""
        return np.arange(self.start, self.stop) if self.chosen is None else self.chosen

    def bounds(self, block: int) -> NDArray[np.int64]:
        """Positions where the file's blocks of ``block`` rows begin, and the end."""
        if self.chosen is None:
            first = (self.start // block + 1) * block
            inner = np.arange(first, self.stop, block) - self.start
            return np.concatenate([[0], inner, [len(self)]])
        edges = np.searchsorted(self.chosen, np.arange(0, self.total + block, block))
        return np.unique(edges)


@dataclass(frozen=True)
class Window:
    """Events read together.

    Args:
        runs: ``(start, stop)`` rows of the file.
        take: Positions in the joined runs, in the order wanted; None for all as they are.
        size: How many events these are.
    """

    runs: Runs
    take: NDArray[np.int64] | None
    size: int


def runs_of(rows: NDArray[np.int64], block: int) -> tuple[Runs, NDArray[np.int64] | None]:
    """Runs that cover rows in any order, one a block, and where in them the rows are."""
    wanted, inverse = np.unique(rows, return_inverse=True)
    if not len(wanted):
        return [(0, 0)], None
    cuts = np.flatnonzero(np.diff(wanted // block)) + 1
    runs: Runs = [(int(part[0]), int(part[-1]) + 1) for part in np.split(wanted, cuts)]
    starts = np.cumsum([0] + [stop - start for start, stop in runs])[:-1]
    lengths = np.diff([0, *cuts.tolist(), len(wanted)])
    place = wanted - np.repeat([start for start, _ in runs], lengths) + np.repeat(starts, lengths)
    take = place[inverse]
    covered = sum(stop - start for start, stop in runs)
    return runs, None if np.array_equal(take, np.arange(covered)) else take


def windows(
    rows: Rows, block: int, window: int, *, shuffle: bool, seed: int, epoch: int, skip: int = 0
) -> Iterator[tuple[int, Window]]:
    """The windows of an epoch, in order.

    Args:
        rows: What to read.
        block: Rows of the file that are cheapest read together.
        window: Events in memory at a time, exceeded only by a single block.
        shuffle: Whether to shuffle; else file order.
        seed: Together with ``epoch`` decides the order.
        epoch: The epoch.
        skip: Windows that end at or before this position are left out unread.

    Yields:
        The position of the window's first event in the epoch, and the window.
    """
    bounds = rows.bounds(block)
    sizes = np.diff(bounds)
    order = np.arange(len(sizes))
    if shuffle:
        order = np.random.default_rng([seed, epoch]).permutation(order)
    ends = np.cumsum(sizes[order])
    position, first, number = 0, 0, 0
    while first < len(order):
        last = max(first + 1, int(np.searchsorted(ends, position + window, side="right")))
        size = int(ends[last - 1]) - position
        if position + size > skip:
            members = order[first:last]
            positions = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in members])
            if shuffle:
                positions = np.random.default_rng([seed, epoch, number]).permutation(positions)
            runs, take = runs_of(rows.select(positions), block)
            yield position, Window(runs, take, size)
        position += size
        first = last
        number += 1


def batch_bounds(
    n: int, size: int, rank: int, world: int, drop_last: bool, start: int = 0
) -> Iterator[tuple[int, int]]:
    """Positions ``(first, last)`` of this rank's share of each global batch of ``size * world`` events.

    ``world`` ranks of batch ``size`` see what one rank of batch ``size * world`` sees. The last global batch may be
    short and is then shared out evenly; with fewer events than ranks it is left out.

    Example:
        >>> list(batch_bounds(10, 2, 1, 2, False))
        [(2, 4), (6, 8), (9, 10)]
    """
    whole = size * world
    for first in range(start * whole, n, whole):
        left = n - first
        if left >= whole:
            yield first + rank * size, first + (rank + 1) * size
        elif not drop_last and left >= world:
            yield first + rank * left // world, first + (rank + 1) * left // world
