"""How the events of one file are looked at: as points, as sparse cells, or as the cells of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsegen.data.reader import Reader
from sparsegen.errors import ConfigError, unknown_name
from sparsegen.events import COUNT, Column, Events
from sparsegen.grid import Grid

__all__ = ["VIEWS", "View", "make_view"]

VIEWS = ("points", "cells", "image")
_IMAGE = 25


@dataclass(frozen=True)
class View:
    """A way to look at a file's events.

    Args:
        name: ``points``, ``cells`` or ``image``.
        grid: The lattice of the cells, or the default lattice beside points.
        columns: The features of a hit.
    """

    name: str
    grid: Grid | None
    columns: tuple[Column, ...]

    def __str__(self) -> str:
        return self.name if self.grid is None else f"{self.name} on {self.grid}"

    def __call__(self, events: Events) -> Events:
        """The events as this view shows them; hits outside the grid of cells are dropped."""
        if self.name == "points":
            return (events.devoxelize("centre") if events.is_cells else events).replace(grid=self.grid)
        if events.is_cells and events.grid == self.grid:
            return events
        return self._voxelize(events)[0]

    def dropped(self, events: Events) -> Tensor:
        """How many hits of each event the view drops ``(B,)``."""
        if self.name == "points" or (events.is_cells and events.grid == self.grid):
            return torch.zeros(len(events), dtype=torch.int64)
        return self._voxelize(events)[1]

    def _voxelize(self, events: Events) -> tuple[Events, Tensor]:
        assert self.grid is not None
        points = events.devoxelize("centre") if events.is_cells else events
        return points.counted().voxelize(self.grid, outside="drop")


def make_view(reader: Reader, name: str | None, shape: Sequence[int] | None, source: str) -> View:
    """The view of a file by name.

    Args:
        reader: The file.
        name: ``points``, ``cells``, ``image`` (25 cells an axis), or None: what the file holds.
        shape: Cells along each axis of the file's own range.
        source: What the user called the file, for errors.

    Raises:
        ConfigError: An unknown view, or cells of a file without a lattice.
    """
    if name is None:
        name = "cells" if reader.is_cells else "points"
    if name not in VIEWS:
        raise ConfigError(f"{source}: {unknown_name('view', name, VIEWS)}")
    grid = reader.grid
    if name == "image" and shape is None and not reader.is_cells:
        shape = (_IMAGE,) * len(reader.axes)
    if shape is not None and grid is not None and tuple(shape) != grid.shape:
        if len(shape) != grid.dim:
            raise ConfigError(f"{source}: shape {tuple(shape)} for the axes {reader.axes}; give one number an axis")
        grid = Grid.regular(shape, grid.low, grid.high, grid.names, grid.units, grid.periodic)
    if name != "points" and grid is None:
        raise ConfigError(
            f"{source}: view {name!r} needs a lattice and the file has none; "
            "`sparsegen data voxelize` writes one with its range"
        )
    return View(name, grid, reader.columns if name == "points" else reader.columns or (COUNT,))
