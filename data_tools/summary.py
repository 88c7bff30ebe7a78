"""What one pass over a data set tells about it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from data_tools.verb import pieces
from sparsegen.data import FileSource
from sparsegen.events import Events

__all__ = ["Summary"]


class Summary:
    """What one pass over a source collects.

    Attributes:
        multiplicity: Hits of each event.
        totals: Sum of each additive column over each event.
        values: A sample of each axis and column, at most ``sample`` values, evenly from all pieces.
        conditions: Values of each condition.
        occupancy: Active fraction of the lattice of each event; empty without a lattice.
        amount: Name of what images and profiles add up: the first additive column, else the number of hits.
        profiles: Mean amount of an event in each cell along each axis of the lattice.
        labels: Class index of each event, or None.
    """

    def __init__(self, source: FileSource, sample: int = 200_000) -> None:
        self.source = source
        self._sample = sample
        self._generator = np.random.default_rng(0)
        self._image: NDArray[np.float64] | None = None
        self._profiles: dict[str, NDArray[np.float64]] = {}
        self.amount = next((column.name for column in source.columns if column.additive), "count")
        labels = source.labels
        self.labels = None if labels is None else labels.numpy()
        multiplicity, occupancy, conditions = [], [], []
        totals: dict[str, list[torch.Tensor]] = {c.name: [] for c in source.columns if c.additive}
        values: dict[str, list[NDArray[np.float32]]] = {
            name: [] for name in (*source.axes, *(c.name for c in source.columns))
        }
        for positions, events in pieces(source):
            multiplicity.append(events.counts)
            for name, parts in totals.items():
                parts.append(events.total(name))
            self._take_values(events, values, len(positions) / len(source))
            if events.condition is not None:
                conditions.append(events.condition)
            if source.grid is not None:
                cells = events if events.is_cells else self._voxelized(events)
                valid = source.grid.cells if source.grid.valid is None else int(source.grid.valid.sum())
                occupancy.append(cells.counts / valid)
                self._add_image(cells)
        self.multiplicity = torch.cat(multiplicity).numpy()
        self.totals = {name: torch.cat(parts).numpy() for name, parts in totals.items()}
        self.values = {name: np.concatenate(parts) for name, parts in values.items()}
        self.occupancy = torch.cat(occupancy).numpy() if occupancy else np.empty(0)
        stacked = torch.cat(conditions).numpy() if conditions else np.empty((0, 0))
        self.conditions = {name: stacked[:, k] for k, name in enumerate(source.conditions)}

    @property
    def image(self) -> NDArray[np.float64] | None:
        """Mean of the first additive column over the last two axes of the lattice."""
        return None if self._image is None else self._image / len(self.source)

    @property
    def profiles(self) -> dict[str, NDArray[np.float64]]:
        """Mean amount of an event in each cell along each axis."""
        return {name: values / len(self.source) for name, values in self._profiles.items()}

    @property
    def per_event(self) -> dict[str, NDArray[np.floating]]:
        """Multiplicity, sums of additive columns and conditions of each event, by name."""
        totals = {f"{name} per event": values for name, values in self.totals.items()}
        return {"multiplicity": self.multiplicity.astype(float), **totals, **self.conditions}

    @property
    def units(self) -> dict[str, str]:
        """Units of axes and columns."""
        grid = self.source.grid
        axes = dict(zip(self.source.axes, grid.units, strict=True)) if grid is not None else {}
        return axes | {column.name: column.unit for column in self.source.columns}

    def _voxelized(self, events: Events) -> Events:
        assert self.source.grid is not None
        reduce = "sum" if events.columns else "count"
        return events.voxelize(self.source.grid, reduce, outside="drop")[0]

    def _take_values(self, events: Events, values: dict[str, list[NDArray[np.float32]]], share: float) -> None:
        size = min(len(events.coords), max(1, int(self._sample * share)))
        chosen = torch.from_numpy(self._generator.choice(len(events.coords), size, replace=False))
        positions = events.positions[chosen]
        for axis, name in enumerate(events.axes):
            values[name].append(positions[:, axis].float().numpy())
        for column in events.columns:
            values[column.name].append(events.column(column.name)[chosen].float().numpy())

    def _add_image(self, cells: Events) -> None:
        grid = cells.grid
        if grid is None or self.amount not in (column.name for column in cells.columns):
            return
        weights = cells.column(self.amount).double().numpy()
        coords = cells.coords.numpy()
        for axis, name in enumerate(cells.axes):
            along = np.bincount(coords[:, axis], weights, minlength=grid.shape[axis]).astype(np.float64)
            self._profiles[name] = self._profiles[name] + along if name in self._profiles else along
        if grid.dim < 2:
            return
        shape = grid.shape[-2:]
        place = coords[:, -2] * shape[1] + coords[:, -1]
        image = np.bincount(place, weights, minlength=shape[0] * shape[1]).astype(np.float64).reshape(shape)
        self._image = image if self._image is None else self._image + image
