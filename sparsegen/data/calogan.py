"""CaloGAN: a three-layer electromagnetic calorimeter.

``layer_0 (N, 3, 96)``, ``layer_1 (N, 12, 12)`` and ``layer_2 (N, 12, 6)`` and ``overflow (N, 3)`` in MeV, but the
incident ``energy (N, 1)`` in GeV; here all are in MeV. Each layer spans 480 mm x 480 mm, first index phi, second eta.

References:
    CaloGAN: Simulating 3D High Energy Particle Showers in Multi-Layer Electromagnetic Calorimeters with Generative
    Adversarial Networks, Paganini, de Oliveira and Nachman, 2017, https://arxiv.org/abs/1712.10321
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.reader import HDF5Reader, hdf5_keys, require
from sparsegen.data.source import EventsSource
from sparsegen.data.voxels import VoxelReader
from sparsegen.errors import DataError
from sparsegen.events import Column
from sparsegen.grid import Grid

__all__ = ["CaloGANReader", "calogan_grid", "write_calogan"]

_SHAPES = ((3, 96), (12, 12), (12, 6))
_HALF = 240.0
_MEV = 1000.0


def calogan_grid() -> Grid:
    """The lattice (layer, phi, eta), positions in mm across the calorimeter's face; 504 cells."""
    phi, eta = np.full((3, 13), np.nan), np.full((3, 97), np.nan)
    for layer, (n_phi, n_eta) in enumerate(_SHAPES):
        phi[layer, : n_phi + 1] = np.linspace(-_HALF, _HALF, n_phi + 1)
        eta[layer, : n_eta + 1] = np.linspace(-_HALF, _HALF, n_eta + 1)
    return Grid([np.arange(4) - 0.5, phi, eta], names=("layer", "phi", "eta"), units=("", "mm", "mm"))


class CaloGANReader(VoxelReader, HDF5Reader):
    """Reads CaloGAN files as sparse cells, everything in MeV."""

    conditions = ("incident_energy", "overflow_0", "overflow_1", "overflow_2")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.rows = len(self.dataset("layer_0"))
        for layer, shape in enumerate(_SHAPES):
            key = f"layer_{layer}"
            require(path, key, self.dataset(key), (self.rows, *shape), "f")
        require(path, "energy", self.dataset("energy"), (self.rows, 1), "f")
        require(path, "overflow", self.dataset("overflow"), (self.rows, 3), "f")
        self.set_grid(calogan_grid(), (Column("energy", "MeV"),), self.dataset("layer_0"))

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Cell energies of the three layers, one after the other ``(B, 504)`` [MeV]."""
        parts = [self.array(f"layer_{layer}", start, stop) for layer in range(3)]
        yield 0, np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)

    def condition_values(self, start: int, stop: int) -> NDArray[Any]:
        """Incident energy and the overflow of each layer ``(B, 4)`` [MeV]."""
        energy = self.array("energy", start, stop).astype(np.float64) * _MEV
        return np.concatenate([energy, self.array("overflow", start, stop)], axis=1)


def write_calogan(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write showers in the CaloGAN layout; an overflow that the events do not carry is zero.

    Raises:
        DataError: They are not cells of its three layers with energy [MeV] and an incident energy.
    """
    events = source.events
    grid = calogan_grid()
    units = [(column.name, column.unit) for column in events.columns]
    fits = events.is_cells and events.grid == grid and units == [("energy", "MeV")]
    if not fits or "incident_energy" not in events.conditions:
        raise DataError(
            f"{path}: CaloGAN holds cells of its three layers with energy [MeV] and the condition incident_energy; "
            f"given {events} on {events.grid}"
        )
    events = events.detach().to("cpu")
    assert events.condition is not None
    condition = dict(zip(events.conditions, events.condition.double().numpy().T, strict=True))
    none = np.zeros(len(events))
    overflow = np.stack([condition.get(f"overflow_{layer}", none) for layer in range(3)], axis=1)
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        options: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("energy", data=(condition["incident_energy"] / _MEV)[:, None], **options)
        file.create_dataset("overflow", data=overflow.astype(np.float32), **options)
        rows = 2048
        for layer, shape in enumerate(_SHAPES):
            chunk = (min(len(events), 256), *shape)
            file.create_dataset(f"layer_{layer}", (len(events), *shape), "f4", chunks=chunk, **options)
        for start in range(0, len(events), rows):
            dense = events[start : start + rows].to_dense()[:, 0].float().numpy()
            for layer, (n_phi, n_eta) in enumerate(_SHAPES):
                file[f"layer_{layer}"][start : start + len(dense)] = dense[:, layer, :n_phi, :n_eta]


def _matches(path: Path) -> bool:
    return bool(hdf5_keys(path) & {"layer_0", "layer_1", "layer_2"})


formats.register("calogan")(
    Format("calogan", "CaloGAN HDF5, three layers", (".hdf5",), _matches, CaloGANReader, write_calogan)
)
