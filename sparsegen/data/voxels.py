"""Dense arrays of cells, read a chunk at a time and handed on as active cells."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.reader import Reader
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.kernels import active_cells

__all__ = ["VoxelReader", "cell_table"]

_BLOCK_BYTES = 16 * 2**20
_TYPICAL_OCCUPANCY = 0.1


def cell_table(grid: Grid) -> torch.Tensor:
    """The valid cells of a grid in row-major order ``(V, D)`` int64: what a flat dense array enumerates."""
    index = torch.arange(grid.cells)
    return grid.unravel(index if grid.valid is None else index[grid.valid.reshape(-1)])


class VoxelReader(Reader):
    """Base of readers over dense arrays; at most one piece of a block is dense at a time."""

    is_cells = True
    threshold = 0.0
    table: torch.Tensor

    def set_grid(self, grid: Grid, columns: Sequence[Column], stored: h5py.Dataset | None = None) -> None:
        """Take the geometry, and from it and from what is stored the sizes of blocks."""
        self.grid = grid
        self.axes = grid.names
        self.columns = tuple(columns)
        self.table = cell_table(grid)
        dense = len(self.table) * len(self.columns) * (4 if stored is None else stored.dtype.itemsize)
        rows = stored.chunks[0] if stored is not None and stored.chunks else 1
        self.block = max(rows, min(1024, _BLOCK_BYTES // dense) // rows * rows)
        hit = 8 * grid.dim + 4 * len(self.columns)
        self.event_bytes = 64 + int(_TYPICAL_OCCUPANCY * hit * len(self.table))

    @abstractmethod
    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Dense values of some rows, by places: the first place, and ``(B, v)`` or ``(B, C, v)`` from there on."""

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
        pieces = [
            active_cells(values, self.table[first : first + values.shape[-1]], self.threshold)
            for first, values in self.pieces(start, stop)
        ]
        coords, features, offsets = pieces[0] if len(pieces) == 1 else _woven(pieces)
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


def _woven(pieces: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, ...]:
    """The cells, features and offsets of events from those of their pieces, place after place."""
    counts = torch.stack([offsets.diff() for _, _, offsets in pieces])
    rows = torch.arange(counts.shape[1], dtype=torch.int16).repeat(len(pieces))
    # A stable sort of small integers takes the time of a copy
    order = torch.from_numpy(np.argsort(rows.repeat_interleave(counts.flatten()).numpy(), kind="stable"))
    offsets = torch.nn.functional.pad(counts.sum(0).cumsum(0), (1, 0))
    coords, features = (torch.cat([piece[i] for piece in pieces]).index_select(0, order) for i in (0, 1))
    return coords, features, offsets
