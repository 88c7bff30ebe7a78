"""Folders of one file an event: ShapeNet PC15k ``.npy`` trees, PLY points, meshes.

The first folder level names the class where there is one (``02691156/train/a.npy``); a folder called ``train``,
``val``, ``valid`` or ``test`` on the way names the split. Files count in the order of their names. A single PLY or mesh
file is a folder of one.

References:
    PointFlow: 3D Point Cloud Generation with Continuous Normalizing Flows, Yang et al., 2019,
    https://arxiv.org/abs/1906.12320 (PC15k)
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.arrays import load_array, unit_box
from sparsegen.data.formats import Format, formats
from sparsegen.data.mapped import values_of
from sparsegen.data.meshes import read_mesh, sample_surface
from sparsegen.data.ply import read_ply
from sparsegen.data.reader import Reader, rows_of
from sparsegen.errors import ConfigError, DataError, unknown_name
from sparsegen.events import Events

__all__ = ["MeshReader", "PC15kReader", "PLYReader"]

_SPLITS = {"train": "train", "val": "valid", "valid": "valid", "test": "test"}
_MESHES = (".off", ".obj", ".stl", ".wrl")
_MESH_POINTS = 2048


class _TreeReader(Reader):
    """Events in the files of a folder; hits have positions and no features."""

    axes = ("x", "y", "z")
    columns = ()
    block = 16
    suffixes: tuple[str, ...]
    points_each: int | None = None
    """Points of every event, where the format fixes them; else those of the first tell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files = _files(path, self.suffixes)
        self.rows = len(self.files)
        self.grid = unit_box(3)
        parts = [file.relative_to(path).parts[:-1] if path.is_dir() else () for file in self.files]
        splits = [next((_SPLITS[part] for part in some if part in _SPLITS), None) for some in parts]
        classes = [next((part for part in some if part not in _SPLITS), None) for some in parts]
        if all(name is not None for name in splits):
            self._split = [str(name) for name in splits]
            self.splits = tuple(name for name in ("train", "valid", "test") if name in self._split)
        self._labels: NDArray[np.int64] | None = None
        if self.rows and all(name is not None for name in classes):
            self.classes = tuple(sorted({str(name) for name in classes}))
            self._labels = np.array([self.classes.index(str(name)) for name in classes], dtype=np.int64)
        if self.rows:
            self.event_bytes = 12 * (self.points_each or len(self.points(self.files[0], 0)))

    @abstractmethod
    def points(self, file: Path, row: int) -> NDArray[Any]:
        """The points ``(P, 3)`` of one file."""

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Point sets of some rows."""
        rows = rows_of(runs, take)
        sets = [np.asarray(self.points(self.files[row], row), dtype=np.float32) for row in rows.tolist()]
        offsets = np.concatenate([[0], np.cumsum([len(points) for points in sets])])
        coords = torch.from_numpy(np.concatenate(sets) if sets else np.empty((0, 3), dtype=np.float32))
        return Events(
            coords,
            coords.new_zeros(len(coords), 0),
            torch.from_numpy(offsets.astype(np.int64)),
            axes=self.axes,
            columns=(),
            grid=self.grid,
            ids=rows,
        )

    def labels(self) -> NDArray[np.int64] | None:
        """Class index of every file, where folders name classes."""
        return self._labels

    def split_rows(self, name: str) -> NDArray[np.int64]:
        """Rows of a split, where folders name splits."""
        if not self.splits:
            return super().split_rows(name)
        if name not in self.splits:
            raise ConfigError(f"{self.path}: {unknown_name('split', name, self.splits)}")
        return np.flatnonzero([split == name for split in self._split])


class PC15kReader(_TreeReader):
    """Reads trees of ``.npy`` files, each ``(P, 3)``."""

    suffixes = (".npy",)

    def points(self, file: Path, row: int) -> NDArray[Any]:
        """The points of one file."""
        points = values_of(load_array(file))
        if points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind != "f":
            raise DataError(f"{file}: has shape {points.shape} and type {points.dtype}; expected floats (P, 3)")
        return points


class PLYReader(_TreeReader):
    """Reads the vertices of PLY files."""

    suffixes = (".ply",)

    def points(self, file: Path, row: int) -> NDArray[Any]:
        """The vertices of one file."""
        return read_ply(file)


class MeshReader(_TreeReader):
    """Samples OFF, OBJ, STL and VRML meshes by area: 2,048 points each, seeded by the file's place in the folder."""

    suffixes = _MESHES
    points_each = _MESH_POINTS

    def points(self, file: Path, row: int) -> NDArray[Any]:
        """Points of one mesh, the same at every read."""
        return sample_surface(*read_mesh(file), _MESH_POINTS, np.random.default_rng(row))


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes)


def _is_ply(path: Path) -> bool:
    """A PLY file, by its first line or its name (a damaged one is then named as such), or a folder of them."""
    if _has(path, (".ply",)) or not path.is_file():
        return _has(path, (".ply",))
    with path.open("rb") as file:
        return file.read(4).rstrip(b"\r\n") == b"ply"


def _has(path: Path, suffixes: tuple[str, ...]) -> bool:
    if path.is_file():
        return path.suffix.lower() in suffixes
    return any(file.suffix.lower() in suffixes for file in path.rglob("*"))


formats.register("pc15k")(
    Format("pc15k", "folders of .npy point sets (PC15k)", (), lambda p: p.is_dir() and _has(p, (".npy",)), PC15kReader)
)
formats.register("ply")(Format("ply", "PLY points, a file or folders", (".ply",), _is_ply, PLYReader))
formats.register("mesh")(
    Format("mesh", "OFF, OBJ, STL or VRML meshes, a file or folders", _MESHES, lambda p: _has(p, _MESHES), MeshReader)
)
