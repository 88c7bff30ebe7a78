"""Dense arrays of cells, read a chunk at a time and handed on as active cells."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.reader import Reader
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["VoxelReader", "active_cells", "cell_table"]

_BLOCK_BYTES = 16 * 2**20
_TYPICAL_OCCUPANCY = 0.1


def cell_table(grid: Grid) -> torch.Tensor:
    """The valid cells of a grid in row-major order ``(V, D)`` int64: what a flat dense array enumerates."""
    index = torch.arange(grid.cells)
    return grid.unravel(index if grid.valid is None else index[grid.valid.reshape(-1)])


def active_cells(
    values: NDArray[Any], table: torch.Tensor, threshold: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Active cells of flat dense events: magnitude above a threshold in some channel, or not a number.

    Args:
        values: ``(B, V)`` or, with several channels, ``(B, C, V)``.
        table: The cell of each of the V places ``(V, D)``, rising.
        threshold: In the unit of the values.

    Returns:
        Cells ``(N, D)``, features ``(N, C)`` float32 and offsets ``(B + 1,)``.

    Example:
        >>> table = torch.tensor([[0, 0], [0, 1], [1, 0]])
        >>> active_cells(np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]]), table)[0].tolist()
        [[0, 1], [0, 0], [1, 0]]
    """
    active = ~(np.abs(values) <= threshold) if threshold > 0 else values != 0
    if values.ndim == 3:
        active = active.any(1)
    index = _flat_index(active)
    offsets = np.searchsorted(index, np.arange(len(values) + 1) * active.shape[1])
    counts = np.diff(offsets)
    if values.ndim == 3:
        event, place = np.divmod(index, active.shape[1])
        features = values[event, :, place]
    else:
        features = values.reshape(-1).take(index)[:, None]
        place = index
        place -= np.repeat(np.arange(len(values)) * active.shape[1], counts)
    return (
        table.index_select(0, torch.from_numpy(place)),
        torch.from_numpy(features.astype(np.float32, copy=False)),
        torch.from_numpy(offsets.astype(np.int64, copy=False)),
    )


def _flat_index(active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat positions of what is True, as ``flatnonzero``, and four times as fast where little is."""
    flat = active.reshape(-1)
    whole = len(flat) // 4 * 4
    # Four flags a word: first the words with any, then the flags inside them
    packed = flat[:whole].view(np.uint32)
    words = np.flatnonzero(packed != 0)
    inside = np.flatnonzero(packed.take(words).view(np.bool_))
    index = words.take(inside >> 2)
    index *= 4
    inside &= 3
    index += inside
    return np.concatenate([index, whole + np.flatnonzero(flat[whole:])]) if whole < len(flat) else index


class VoxelReader(Reader):
    """Base of readers over dense arrays; at most one block is dense at a time."""

    is_cells = True
    threshold = 0.0
    table: torch.Tensor

    def set_grid(self, grid: Grid, columns: Sequence[Column], chunk_rows: int | None) -> None:
        """Take the geometry, and from it the sizes of blocks."""
        self.grid = grid
        self.axes = grid.names
        self.columns = tuple(columns)
        self.table = cell_table(grid)
        dense = 4 * len(self.table) * len(self.columns)
        rows = chunk_rows or 1
        self.block = max(rows, min(1024, _BLOCK_BYTES // dense) // rows * rows)
        hit = 8 * grid.dim + 4 * len(self.columns)
        self.event_bytes = 64 + int(_TYPICAL_OCCUPANCY * hit * len(self.table))

    @abstractmethod
    def values(self, start: int, stop: int) -> NDArray[Any]:
        """Dense values of some rows, ``(B, V)`` or ``(B, C, V)``."""

    def condition_values(self, start: int, stop: int) -> NDArray[Any] | None:
        """Conditions of some rows ``(B, K)``."""
        return None

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Active cells of some rows."""
        parts = [
            self._run(first, min(first + self.block, stop))
            for start, stop in runs
            for first in range(start, max(stop, start + 1), self.block)
        ]
        events = parts[0] if len(parts) == 1 else Events.cat(parts)
        return events if take is None else events[torch.from_numpy(take)]

    def _run(self, start: int, stop: int) -> Events:
        coords, features, offsets = active_cells(self.values(start, stop), self.table, self.threshold)
        condition = self.condition_values(start, stop)
        # By construction sorted, without duplicates, and inside the grid: not checked again
        return Events._trusted(
            True,
            coords=coords,
            features=features,
            offsets=offsets,
            axes=self.axes,
            columns=self.columns,
            condition=None if condition is None else torch.from_numpy(condition.astype(np.float32, copy=False)),
            conditions=self.conditions,
            grid=self.grid,
            ids=torch.arange(start, stop),
        )
