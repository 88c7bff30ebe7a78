"""ModelNet40 as sampled points.

``data (N, P, 3)``, ``label (N, 1)`` and, where the file has them, ``normal (N, P, 3)``. A ``shape_names.txt`` beside
the file names the classes; a file that sparsegen writes names them itself, in the attribute ``shape_names`` (JSON).

References:
    3D ShapeNets: A Deep Representation for Volumetric Shapes, Wu et al., 2015, https://arxiv.org/abs/1406.5670
    PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation, Qi et al., 2017,
    https://arxiv.org/abs/1612.00593 (the files)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.arrays import one_size, unit_box
from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.labels import class_names
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, label_findings, require, rows_of
from sparsegen.data.source import EventsSource
from sparsegen.errors import DataError
from sparsegen.events import Column, Events

__all__ = ["ModelNetReader", "write_modelnet"]

_NORMALS = tuple(Column(f"normal_{axis}", additive=False) for axis in "xyz")


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
        self.columns = _NORMALS if self.has_normals else ()
        names = path.with_name("shape_names.txt")
        self.classes = tuple(self.fact("shape_names") or ())
        if not self.classes:
            self.classes = tuple(names.read_text().split()) if names.exists() else class_names(self.array("label"))
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
        yield from label_findings(self.path, "label", self.labels(), self.classes)


def write_modelnet(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write point sets of equal size in the ModelNet40 layout, with their normals where they have some.

    Raises:
        DataError: They are not labelled points in x, y, z of one size, bare or with normals, of at most 256 classes.
    """
    events = source.events.detach().to("cpu")
    if events.is_cells or events.axes != ModelNetReader.axes or events.columns not in ((), _NORMALS):
        raise DataError(f"{path}: ModelNet holds points in x, y, z, bare or with normal_x, _y, _z; given {events}")
    if source.labels is None:
        raise DataError(f"{path}: ModelNet names the class of every shape; pass labels")
    if len(source.classes) > 256:
        raise DataError(f"{path}: {len(source.classes)} classes; ModelNet counts 256 in a byte: write format ragged")
    length = one_size(events, path, "ModelNet")
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        options: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        chunk = (min(len(events), 64), length, 3)
        values = {"data": events.coords, "normal": events.features} if events.columns else {"data": events.coords}
        for key, hits in values.items():
            stored = hits.float().reshape(len(events), length, 3).numpy()
            file.create_dataset(key, data=stored, chunks=chunk, **options)
        file.create_dataset("label", data=source.labels.numpy()[:, None].astype(np.uint8), **options)
        file.attrs["shape_names"] = json.dumps(source.classes)


def _matches(path: Path) -> bool:
    return {"data", "label"} <= hdf5_keys(path)


formats.register("modelnet")(
    Format(
        "modelnet",
        "ModelNet40 points HDF5 (ply_hdf5_2048)",
        (".h5",),
        _matches,
        ModelNetReader,
        write_modelnet,
        labels=True,
    )
)
