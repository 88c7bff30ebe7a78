"""LAGAN jet images: boosted W against QCD, 25 x 25 pixels of transverse momentum.

``image (N, 25, 25)`` [GeV], ``signal (N,)`` (1 = W, 0 = QCD) and any ``jet_*`` and ``tau_*`` records of shape ``(N,)``:
published are ``jet_pt``, ``jet_eta``, ``jet_phi``, ``jet_mass``, ``jet_delta_R``, ``tau_1``, ``tau_2``, ``tau_3``,
``tau_21`` and ``tau_32``. The published images were rotated by
a cubic spline, which leaves ripples of either sign: pixels of at most 1 MeV are no hits, as in the published loader.

References:
    Learning Particle Physics by Example: Location-Aware Generative Adversarial Networks for Physics Synthesis,
    de Oliveira, Paganini and Nachman, 2017, https://arxiv.org/abs/1701.05927
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
from sparsegen.data.labels import labels_in
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, require
from sparsegen.data.source import EventsSource
from sparsegen.data.voxels import VoxelReader
from sparsegen.errors import DataError
from sparsegen.events import Column
from sparsegen.grid import Grid

__all__ = ["LAGANReader", "write_lagan"]

_HALF = 1.25
_RECORDS = ("jet_", "tau_")
_CLASSES = ("qcd", "w")
_COLUMNS = (Column("pt", "GeV"),)


def lagan_grid(height: int = 25, width: int = 25) -> Grid:
    """The lattice of the images, in units of R = 1.25 around the leading subjet."""
    return Grid.regular((height, width), (-_HALF,) * 2, (_HALF,) * 2, ("etarel", "phirel"), ("", "rad"))


class LAGANReader(VoxelReader, HDF5Reader):
    """Reads LAGAN files as sparse cells; classes are ``qcd`` and ``w``."""

    classes = _CLASSES
    threshold = 1e-3

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        images, signal = self.dataset("image"), self.dataset("signal")
        require(path, "image", images, (None, None, None), "f")
        self.rows, height, width = images.shape
        require(path, "signal", signal, (self.rows,), "n")
        self.conditions = tuple(sorted(name for name in self.file if name.startswith(_RECORDS)))
        for name in self.conditions:
            require(path, name, self.dataset(name), (self.rows,), "f")
        self.set_grid(lagan_grid(height, width), _COLUMNS, images)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Pixels ``(B, 625)`` [GeV]."""
        images = self.array("image", start, stop)
        yield 0, images.reshape(len(images), -1)

    def condition_values(self, start: int, stop: int) -> NDArray[Any] | None:
        """The file's jet records ``(B, K)``."""
        if not self.conditions:
            return None
        return np.stack([self.array(name, start, stop) for name in self.conditions], axis=1)

    def labels(self) -> NDArray[np.int64]:
        """0 for QCD, 1 for W."""
        return self.array("signal").astype(np.int64)

    def findings(self) -> Iterator[Finding]:
        """Labels that are neither 0 nor 1."""
        values = self.array("signal")
        for row in np.flatnonzero((values != 0) & (values != 1)):
            yield Finding(str(self.path), "signal", int(row), f"is {values[row]}, expected 0 or 1")


def write_lagan(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write jet images in the LAGAN layout, with the conditions called ``jet_*`` and ``tau_*`` as records.

    Raises:
        DataError: They are not labelled cells of its lattice with pt [GeV] above 1 MeV.
    """
    events = source.events.detach().to("cpu")
    grid = events.grid
    fits = events.is_cells and grid is not None and grid.dim == 2 and grid == lagan_grid(*grid.shape)
    if not fits or events.columns != _COLUMNS:
        raise DataError(
            f"{path}: LAGAN holds cells of etarel, phirel in [-{_HALF}, {_HALF}]^2 with pt [GeV]; "
            f"given {events} on {grid}"
        )
    labels = labels_in(source, _CLASSES, path, "LAGAN")
    soft = (events.features[:, 0] <= LAGANReader.threshold).nonzero()[:, 0]
    if len(soft):
        event = int(events.batch[soft[0]])
        raise DataError(f"{path}: event {event} has a pixel of at most 1 MeV, which LAGAN calls no hit; drop it")
    assert grid is not None
    rows = 4096
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        options: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        chunk = (min(len(events), 256), *grid.shape)
        images = file.create_dataset("image", (len(events), *grid.shape), "f4", chunks=chunk, **options)
        for start in range(0, len(events), rows):
            some = events[start : start + rows]
            images[start : start + len(some)] = some.to_dense()[:, 0].float().numpy()
        file.create_dataset("signal", data=labels.astype(np.float32), **options)
        for k, name in enumerate(events.conditions):
            if name.startswith(_RECORDS):
                assert events.condition is not None
                file.create_dataset(name, data=events.condition[:, k].float().numpy(), **options)


def _matches(path: Path) -> bool:
    return bool(hdf5_keys(path) & {"image"})


formats.register("lagan")(
    Format("lagan", "LAGAN jet images HDF5", (".hdf5",), _matches, LAGANReader, write_lagan, labels=True)
)
