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

import numpy as np
from numpy.typing import NDArray

from sparsegen.data.formats import Format, formats
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, require
from sparsegen.data.voxels import VoxelReader
from sparsegen.events import Column
from sparsegen.grid import Grid

__all__ = ["LAGANReader"]

_HALF = 1.25
_RECORDS = ("jet_", "tau_")


class LAGANReader(VoxelReader, HDF5Reader):
    """Reads LAGAN files as sparse cells; classes are ``qcd`` and ``w``."""

    classes = ("qcd", "w")
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
        grid = Grid.regular((height, width), (-_HALF,) * 2, (_HALF,) * 2, ("etarel", "phirel"), ("", "rad"))
        self.set_grid(grid, (Column("pt", "GeV"),), images)

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


def _matches(path: Path) -> bool:
    return bool(hdf5_keys(path) & {"image"})


formats.register("lagan")(Format("lagan", "LAGAN jet images HDF5", (".hdf5",), _matches, LAGANReader))
