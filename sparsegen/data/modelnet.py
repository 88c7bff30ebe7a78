"""ModelNet40 as sampled points.

``data (N, P, 3)``, ``label (N, 1)`` and, where the file has them, ``normal (N, P, 3)``. A ``shape_names.txt`` beside
the file names the classes.

References:
    3D ShapeNets: A Deep Representation for Volumetric Shapes, Wu et al., 2015, https://arxiv.org/abs/1406.5670
    PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation, Qi et al., 2017,
    https://arxiv.org/abs/1612.00593 (the files)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.arrays import unit_box
from sparsegen.data.formats import Format, formats
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, require, rows_of
from sparsegen.events import Column, Events

__all__ = ["ModelNetReader"]


class ModelNetReader(HDF5Reader):
    """Reads ModelNet40 HDF5 files as points in ``[-1, 1]^3``, with their normals if there are any."""

    axes = ("x", "y", "z")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        points, labels = self.dataset("data"), self.dataset("label")
        require(path, "data", points, (None, None, 3), "f")
        self.rows, self.length, _ = points.shape
        require(path, "label", labels, (self.rows, 1), "i")
        self.has_normals = "normal" in self.file
        if self.has_normals:
            require(path, "normal", self.dataset("normal"), points.shape, "f")
        self.columns = tuple(Column(f"normal_{axis}", additive=False) for axis in "xyz") if self.has_normals else ()
        names = path.with_name("shape_names.txt")
        count = int(self.array("label").max(initial=0)) + 1
        self.classes = tuple(names.read_text().split()) if names.exists() else tuple(map(str, range(count)))
        self.grid = unit_box(3)
        self.event_bytes = 12 * self.length * (1 + self.has_normals)
        rows = points.chunks[0] if points.chunks else 64
        self.block = max(rows, 64 // rows * rows)

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Point sets of some rows."""
        points = self.joined("data", runs, take)
        coords = torch.from_numpy(points.reshape(-1, 3).astype(np.float32))
        features = coords.new_zeros(len(coords), 0)
        if self.has_normals:
            features = torch.from_numpy(self.joined("normal", runs, take).reshape(-1, 3).astype(np.float32))
        return Events(
            coords,
            features,
            torch.arange(len(points) + 1) * self.length,
            axes=self.axes,
            columns=self.columns,
            grid=self.grid,
            ids=rows_of(runs, take),
        )

    def labels(self) -> NDArray[np.int64]:
        """Class index of every shape."""
        return self.array("label")[:, 0].astype(np.int64)

    def findings(self) -> Iterator[Finding]:
        """Labels without a class."""
        labels = self.labels()
        for row in np.flatnonzero((labels < 0) | (labels >= len(self.classes))):
            message = f"is {labels[row]}, but there are {len(self.classes)} classes"
            yield Finding(str(self.path), "label", int(row), message)


def _matches(path: Path) -> bool:
    return {"data", "label"} <= hdf5_keys(path)


formats.register("modelnet")(
    Format("modelnet", "ModelNet40 points HDF5 (ply_hdf5_2048)", (".h5",), _matches, ModelNetReader)
)
