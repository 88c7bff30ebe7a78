"""CaloClouds: photon showers as point clouds, channel first, padded on the left.

``events (N, 4, M)`` holds x [mm], layer, z [mm] and energy [GeV]; a place without energy is padding; ``energy (N, 1)``
is the incident energy [GeV].

References:
    CaloClouds: Fast Geometry-Independent Highly-Granular Calorimeter Simulation, Buhmann et al., 2023,
    https://arxiv.org/abs/2305.04847
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.formats import Format, formats
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, padded_to_events, require, rows_of
from sparsegen.events import Column, Events

__all__ = ["CaloCloudsReader"]

_BLOCK_BYTES = 8 * 2**20


class CaloCloudsReader(HDF5Reader):
    """Reads CaloClouds files as points."""

    axes = ("x", "layer", "z")
    columns = (Column("energy", "GeV"),)
    conditions = ("incident_energy",)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        events, energy = self.dataset("events"), self.dataset("energy")
        require(path, "events", events, (None, 4, None), "f")
        self.rows, _, self.length = events.shape
        require(path, "energy", energy, (self.rows, 1), "f")
        rows = events.chunks[0] if events.chunks else 1
        self.block = max(rows, min(1024, _BLOCK_BYTES // (16 * self.length)) // rows * rows)
        self.event_bytes = 16 * self.length

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Showers of some rows, padding left out."""
        values = self.joined("events", runs, take).swapaxes(1, 2)
        return padded_to_events(
            np.ascontiguousarray(values),
            values[..., 3] != 0,
            slice(0, 3),
            slice(3, 4),
            axes=self.axes,
            columns=self.columns,
            condition=torch.from_numpy(self.joined("energy", runs, take).astype(np.float32, copy=False)),
            conditions=self.conditions,
            ids=rows_of(runs, take),
        )

    def findings(self) -> Iterator[Finding]:
        """Rows with padding after a hit, or padding that is not empty."""
        for start in range(0, self.rows, self.block):
            values = self.array("events", start, start + self.block)
            real = values[:, 3] != 0
            faults = {
                "has padding after a hit, expected it before all": (real[:, :-1] & ~real[:, 1:]).any(1),
                "has places without energy that have a position": ((values[:, :3] != 0).any(1) & ~real).any(1),
            }
            for message, bad in faults.items():
                for row in np.flatnonzero(bad):
                    yield Finding(str(self.path), "events", start + int(row), message)


def _matches(path: Path) -> bool:
    return bool(hdf5_keys(path) & {"events"})


formats.register("caloclouds")(
    Format("caloclouds", "CaloClouds HDF5 point clouds", (".hdf5", ".h5"), _matches, CaloCloudsReader)
)
