"""CaloChallenge 2022: showers in cylinders of unequal layers, read as sparse cells.

``incident_energies (N, 1)`` and ``showers (N, V)``, both in MeV; a shower is flat with r fastest, then alpha, then the
layer. A ``binning*.xml`` beside the file gives the geometry; without one that fits, the four published geometries are
known by their number of voxels.

References:
    CaloChallenge 2022: A Community Challenge for Fast Calorimeter Simulation, Krause et al., 2024,
    https://arxiv.org/abs/2410.21611
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.reader import HDF5Reader, hdf5_keys, require
from sparsegen.data.source import EventsSource
from sparsegen.data.voxels import VoxelReader, cell_table
from sparsegen.errors import DataError
from sparsegen.events import Column
from sparsegen.grid import Grid
from sparsegen.kernels import deflate_cells

__all__ = ["CALOCHALLENGE", "CaloChallengeReader", "calochallenge_grid", "cylinder_grid", "read_binning"]

_AXES = ("layer", "alpha", "r")
_UNITS = ("", "rad", "mm")
Layers = list[tuple[list[float], int]]


def _edges(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _uniform(layers: int, step: float, bins: int, alpha: int) -> Layers:
    return [([round(step * i, 6) for i in range(bins + 1)], alpha)] * layers


_PRESAMPLER = _edges("0,5,10,30,50,100,200,400,600")
_BACK = _edges("0,50,100,200,400,600")
CALOCHALLENGE: dict[str, Layers] = {
    "1-photons": [
        (_PRESAMPLER, 1),
        (_edges("0,2,4,6,8,10,12,15,20,30,40,50,70,90,120,150,200"), 10),
        (_edges("0,2,5,10,15,20,25,30,40,50,60,80,100,130,160,200,250,300,350,400"), 10),
        (_BACK, 1),
        (_edges("0,100,200,400,1000,2000"), 1),
    ],
    "1-pions": [
        (_PRESAMPLER, 1),
        (_edges("0,1,4,7,10,15,30,50,90,150,200"), 10),
        (_edges("0,5,10,20,30,50,80,130,200,300,400"), 10),
        (_BACK, 1),
        (_edges("0,10,20,30,50,80,100,130,160,200,250,300,350,400,1000,2000"), 10),
        (_edges("0,10,20,30,50,80,100,130,160,200,250,300,350,400,600,1000,2000"), 10),
        (_edges("0,50,100,150,200,250,300,400,600,1000,2000"), 1),
    ],
    "2": _uniform(45, 4.65, 9, 16),
    "3": _uniform(45, 2.325, 18, 50),
}
"""The published geometries: for each layer that has voxels, its edges in r [mm] and its bins in alpha."""


def cylinder_grid(layers: Layers) -> Grid:
    """The lattice (layer, alpha, r) of a cylinder; layers count from 0, those without voxels left out.

    Alpha is periodic where every layer has one number of bins in it, or a single one, as in all published data sets.
    """
    alpha = [np.linspace(-math.pi, math.pi, bins + 1) for _, bins in layers]
    radius = [np.array(edges) for edges, _ in layers]
    number = np.arange(len(layers) + 1) - 0.5
    counts = {bins for _, bins in layers}
    wraps = counts <= {1, max(counts)}
    return Grid([number, _rows(alpha), _rows(radius)], periodic=("alpha",) if wraps else (), names=_AXES, units=_UNITS)


def _rows(edges: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One row of edges where all layers agree, else a row each, padded with NaN."""
    if all(np.array_equal(row, edges[0]) for row in edges):
        return edges[0]
    table = np.full((len(edges), max(map(len, edges))), np.nan)
    for row, values in zip(table, edges, strict=True):
        row[: len(values)] = values
    return table


def calochallenge_grid(name: str) -> Grid:
    """The lattice of a published data set: ``1-photons``, ``1-pions``, ``2`` or ``3``.

    Example:
        >>> calochallenge_grid("2")
        Grid(layer: 45 in [-0.5, 44.5], alpha: 16 in [-3.14159, 3.14159] rad periodic, r: 9 in [0, 41.85] mm)
    """
    return cylinder_grid(CALOCHALLENGE[name])


def read_binning(path: Path) -> Layers:
    """Layers with voxels of a ``binning*.xml`` file.

    Raises:
        DataError: It is no such file.
    """
    try:
        root = ElementTree.parse(path).getroot()
        layers = [(_edges(layer.attrib["r_edges"]), int(layer.attrib["n_bin_alpha"])) for layer in root.iter("Layer")]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a binning file ({error}); copy it again from the challenge's page") from None
    for number, (edges, alpha) in enumerate(layers):
        if alpha < 1 or any(b <= a for a, b in itertools.pairwise(edges)):
            raise DataError(
                f"{path}: layer {number} has {alpha} bins in alpha and r_edges {edges}, which do not rise; "
                "copy it again from the challenge's page"
            )
    found = [(edges, alpha) for edges, alpha in layers if len(edges) > 1]
    if not found:
        raise DataError(f"{path}: no layer has voxels; copy it again from the challenge's page")
    return found


def _voxels(layers: Layers) -> int:
    return sum((len(edges) - 1) * alpha for edges, alpha in layers)


def _geometry(path: Path, voxels: int) -> Layers:
    """The one geometry that fits a file: from a binning beside it, else a published one."""
    binnings = {xml: read_binning(xml) for xml in sorted(path.parent.glob("binning*.xml"))}
    fitting = [layers for layers in binnings.values() if _voxels(layers) == voxels]
    fitting += [layers for layers in CALOCHALLENGE.values() if _voxels(layers) == voxels]
    if fitting:
        return fitting[0]
    found = ", ".join(f"{xml.name} ({_voxels(layers)})" for xml, layers in binnings.items()) or "none"
    raise DataError(
        f"{path}: showers has {voxels} voxels; the binning files beside it, {found}, do not fit; "
        "put the right binning*.xml into its folder"
    )


class CaloChallengeReader(VoxelReader, HDF5Reader):
    """Reads CaloChallenge files of any geometry."""

    conditions = ("incident_energy",)

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        showers, incident = self.dataset("showers"), self.dataset("incident_energies")
        require(path, "showers", showers, (None, None), "f")
        self.rows = len(showers)
        require(path, "incident_energies", incident, (self.rows, 1), "f")
        grid = cylinder_grid(_geometry(path, showers.shape[1]))
        self.set_grid(grid, (Column("energy", "MeV"),), showers)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Voxel energies [MeV], a chunk of the file at a time."""
        return self.pieces_of("showers", start, stop)

    def condition_values(self, start: int, stop: int) -> NDArray[Any]:
        """Incident energies ``(B, 1)`` [MeV]."""
        return self.array("incident_energies", start, stop)


def write_calochallenge(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write showers in the CaloChallenge layout.

    Raises:
        DataError: They are not cells of a published geometry with energies in MeV and an incident energy.
    """
    events = source.events
    known = {name: calochallenge_grid(name) for name in CALOCHALLENGE}
    units = [(column.name, column.unit) for column in events.columns]
    fits = events.is_cells and events.grid in known.values() and units == [("energy", "MeV")]
    if not fits or "incident_energy" not in events.conditions:
        raise DataError(
            f"{path}: CaloChallenge holds cells of one of its geometries ({', '.join(known)}) with energy [MeV] and "
            f"the condition incident_energy; given {events} on {events.grid}"
        )
    assert events.condition is not None
    assert events.grid is not None
    events = events.detach().to("cpu").coalesce()
    assert events.grid is not None
    assert events.condition is not None
    place = torch.full((events.grid.cells,), -1)
    table = cell_table(events.grid)
    place[events.grid.ravel(table)] = torch.arange(len(table))
    incident = events.condition[:, [events.conditions.index("incident_energy")]].float().numpy()
    rows = max(1, 2**22 // len(table))
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        # Chunks as gzip would store them, without the dense arrays
        options: dict[str, Any] = {"compression": "gzip", "compression_opts": 1}
        file.create_dataset("incident_energies", data=incident, **options)
        rows = min(rows, len(events), 256)
        chunks = (rows, len(table))
        showers = file.create_dataset("showers", (len(events), len(table)), "<f4", chunks=chunks, **options)
        for start in range(0, len(events), rows):
            some = events[start : start + rows]
            places = some.batch * len(table) + place[events.grid.ravel(some.coords)]
            energies = some.features[:, 0].numpy().astype("<f4")
            showers.id.write_direct_chunk((start, 0), deflate_cells(places.numpy(), energies, rows * len(table)))


def _matches(path: Path) -> bool:
    return bool(hdf5_keys(path) & {"showers", "incident_energies"})


formats.register("calochallenge")(
    Format(
        "calochallenge",
        "CaloChallenge 2022 HDF5, data sets 1 to 3 or any binning*.xml",
        (".hdf5", ".h5"),
        _matches,
        CaloChallengeReader,
        write_calochallenge,
    )
)
