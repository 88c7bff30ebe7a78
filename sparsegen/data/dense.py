"""Dense HDF5: ``images (N, *shape)`` or ``(N, C, *shape)``, with ``labels (N,)`` and ``condition (N, K)`` if any.

Files that sparsegen writes say what their axes and channels mean, in the attributes ``columns``, ``grid``,
``conditions`` and ``classes`` (JSON). Foreign files without them are images of one channel, ``intensity``, on a lattice
of unit cells.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.labels import class_names
from sparsegen.data.reader import Finding, HDF5Reader, hdf5_keys, label_findings, require
from sparsegen.data.source import EventsSource
from sparsegen.data.voxels import VoxelReader
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = ["DenseReader", "image_grid", "images_only", "write_dense"]


def image_grid(shape: tuple[int, ...]) -> Grid:
    """A lattice of unit cells: rows ``y`` and columns ``x`` of an image, ``z, y, x`` of a volume."""
    names = {1: ("x",), 2: ("y", "x"), 3: ("z", "y", "x")}.get(len(shape))
    return Grid.regular(shape, (0.0,) * len(shape), tuple(map(float, shape)), names)


def images_only(events: Events, path: Path, format: str) -> Grid:
    """The lattice of events that are images: two- or three-dimensional unit cells with the one column ``intensity``.

    Raises:
        DataError: They are something else, or have conditions.
    """
    grid = events.grid
    fits = events.is_cells and grid is not None and grid.dim in (2, 3) and grid == image_grid(grid.shape)
    if grid is None or not fits or [c.name for c in events.columns] != ["intensity"] or events.conditions:
        raise DataError(
            f"{path}: {format} holds the column intensity on unit cells, no conditions; given {events} on {grid}"
        )
    return grid


class DenseReader(VoxelReader, HDF5Reader):
    """Reads dense HDF5 files as sparse cells."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        images = self.dataset("images")
        if images.dtype.kind not in "fiub" or images.ndim < 2:
            raise DataError(
                f"{path}: key 'images' has shape {images.shape} and type {images.dtype}; expected numbers (N, *shape): "
                "copy or make it again"
            )
        self.rows = len(images)
        facts = {key: self.fact(key) for key in ("columns", "grid", "conditions", "classes")}
        if facts["grid"] is None:
            grid = image_grid(images.shape[1:])
            columns: tuple[Column, ...] = (Column("intensity"),)
        else:
            grid = Grid.from_dict(facts["grid"])
            columns = tuple(Column(**column) for column in facts["columns"])
            require(path, "images", images, (self.rows, len(columns), *grid.shape), "n")
        self.conditions = tuple(facts["conditions"] or ())
        if self.conditions:
            require(path, "condition", self.dataset("condition"), (self.rows, len(self.conditions)), "f")
        if "labels" in self.file:
            require(path, "labels", self.dataset("labels"), (self.rows,), "i")
            self.classes = tuple(facts["classes"] or ()) or class_names(self.array("labels"))
        self.set_grid(grid, columns, images)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Pixels ``(B, V)``, or ``(B, C, V)`` of several channels."""
        images = self.array("images", start, stop)
        channels = (len(self.columns),) if len(self.columns) > 1 else ()
        yield 0, images.reshape(len(images), *channels, len(self.table))

    def condition_values(self, start: int, stop: int) -> NDArray[Any] | None:
        """The file's conditions ``(B, K)``."""
        return self.array("condition", start, stop) if self.conditions else None

    def labels(self) -> NDArray[np.int64] | None:
        """Class index of every event, where the file has labels."""
        return self.array("labels").astype(np.int64) if self.classes else None

    def findings(self) -> Iterator[Finding]:
        """Labels without a class."""
        yield from label_findings(self.path, "labels", self.labels(), self.classes)


def write_dense(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write cells as dense images ``(N, C, *shape)`` with what their axes and channels mean.

    Raises:
        DataError: The events are points, or the lattice has invalid cells, which an image cannot tell from empty ones.
    """
    events = source.events
    if not events.is_cells or events.grid is None or events.grid.valid is not None:
        raise DataError(f"{path}: a dense file holds cells of a full lattice; voxelize first; given {events}")
    events = events.detach().to("cpu")
    grid = events.grid
    assert grid is not None
    rows = max(1, 2**22 // (grid.cells * len(events.columns)))
    shape = (len(events.columns), *grid.shape)
    with whole_file(path, overwrite) as part, h5py.File(part, "w") as file:
        options: dict[str, Any] = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        chunk = (min(rows, len(events), 256), *shape)
        images = file.create_dataset("images", (len(events), *shape), "f4", chunks=chunk, **options)
        for start in range(0, len(events), rows):
            some = events[start : start + rows]
            images[start : start + len(some)] = some.to_dense().float().numpy()
        if events.condition is not None:
            file.create_dataset("condition", data=events.condition.float().numpy(), **options)
        if source.labels is not None:
            file.create_dataset("labels", data=source.labels.numpy(), **options)
        facts = {
            "columns": [{"name": c.name, "unit": c.unit, "additive": c.additive} for c in events.columns],
            "grid": grid.to_dict(),
            "conditions": list(events.conditions),
            "classes": list(source.classes),
        }
        file.attrs.update({key: json.dumps(value) for key, value in facts.items()})


def _matches(path: Path) -> bool:
    return bool(hdf5_keys(path) & {"images"})


formats.register("dense")(
    Format("dense", "dense HDF5 images", (".h5", ".hdf5"), _matches, DenseReader, write_dense, labels=True)
)
