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
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, padded_to_events, require, rows_of
from sparsegen.data.source import EventsSource
from sparsegen.errors import DataError
from sparsegen.events import Column, Events

__all__ = ["CaloCloudsReader", "write_caloclouds"]

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


def write_caloclouds(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write showers in the CaloClouds layout, as long as the largest of them.

    Raises:
        DataError: They are not points in x, layer, z with energy [GeV] and an incident energy.
    """
    events = source.events
    units = [(column.name, column.unit) for column in events.columns]
    fits = not events.is_cells and events.axes == CaloCloudsReader.axes and units == [("energy", "GeV")]
    if not fits or "incident_energy" not in events.conditions:
        raise DataError(
            f"{path}: CaloClouds holds points in x, layer, z with energy [GeV] and the condition incident_energy; "
            f"given {events}"
        )
    events = events.detach().to("cpu")
    silent = (events.features[:, 0] == 0).nonzero()[:, 0]
    if len(silent):
        event = int(events.batch[silent[0]])
        raise DataError(f"{path}: event {event} has a hit without energy, which CaloClouds calls padding; drop it")
    assert events.condition is not None
    incident = events.condition[:, [events.conditions.index("incident_energy")]].float().numpy()
    length = max(1, int(events.counts.max()))
    rows = max(1, 2**20 // length)
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        options: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("energy", data=incident, **options)
        chunk = (min(rows, len(events), 64), 4, length)
        stored = file.create_dataset("events", (len(events), 4, length), "f4", chunks=chunk, **options)
        for start in range(0, len(events), rows):
            some = events[start : start + rows]
            values = torch.zeros(len(some), length, 4)
            # Hits end where the row ends
            slot = length - some.offsets[1:][some.batch] + torch.arange(len(some.coords))
            values[some.batch, slot] = torch.cat([some.coords, some.features], 1).float()
            stored[start : start + len(some)] = values.swapaxes(1, 2).numpy()


def _matches(path: Path) -> bool:
    return bool(hdf5_keys(path) & {"events"})


formats.register("caloclouds")(
    Format("caloclouds", "CaloClouds HDF5 point clouds", (".hdf5", ".h5"), _matches, CaloCloudsReader, write_caloclouds)
)
