"""NumPy files: stacks of images or of point sets, and the quark-gluon jets.

``.npy``: ``(N, H, W)`` or ``(N, Z, Y, X)`` are images; ``(N, P, 2)`` and ``(N, P, 3)`` are point sets of P points.
``.npz``: the same under ``images``, ``points`` or ``x``, with ``labels`` or ``y`` beside it; and the quark-gluon
layout, ``X (N, M, 4)`` of pt [GeV], rapidity, azimuth and particle code, zero where there is none, with
``y`` (1 = quark).

References:
    Energy Flow Networks: Deep Sets for Particle Jets, Komiske, Metodiev and Thaler, 2019,
    https://arxiv.org/abs/1810.05165 (quark-gluon jets)
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.dense import image_grid
from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.jets import JET_CONDITIONS, jet_events
from sparsegen.data.reader import Finding, Reader, rows_of
from sparsegen.data.voxels import VoxelReader
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = [
    "ImageStackReader",
    "PointStackReader",
    "QuarkGluonReader",
    "load_array",
    "unit_box",
    "write_images",
    "write_points",
]

_MAGIC = b"\x93NUMPY"
_VALUES = ("images", "points", "x")
_LABELS = ("labels", "y")


def unit_box(dim: int, cells: int = 32) -> Grid:
    """The default lattice of point sets: the box ``[-1, 1]^dim``."""
    return Grid.regular((cells,) * dim, (-1.0,) * dim, (1.0,) * dim, ("x", "y", "z")[:dim])


def load_array(path: Path, key: str | None = None) -> NDArray[Any]:
    """The array of a ``.npy`` file, mapped and not loaded, or one of a ``.npz`` file.

    Raises:
        DataError: The file is damaged, or holds Python objects.
    """
    try:
        if key is None:
            return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[key])
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable NumPy file ({error}); copy or make it again") from None


def _keys(path: Path) -> tuple[str, ...]:
    """Arrays of a ``.npz`` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable NumPy archive ({error}); copy or make it again") from None


def _value_key(path: Path) -> str | None:
    """Which array of a file holds the events; None in a ``.npy`` file."""
    if _is_npy(path):
        return None
    keys = _keys(path)
    found = [key for key in _VALUES if key in keys]
    if len(found) != 1:
        raise DataError(f"{path}: has the keys {', '.join(keys)}; expected one of {', '.join(_VALUES)}")
    return found[0]


class _ArrayReader(Reader):
    """An array of events and its labels, loaded once a process."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.path = path
        self._key = key
        self._array = load_array(path, key)
        self.rows = len(self._array)
        self._labels: NDArray[np.int64] | None = None
        named = [name for name in _LABELS if key is not None and name in _keys(path)]
        if named:
            labels = load_array(path, named[0]).reshape(-1)
            if len(labels) != self.rows:
                raise DataError(
                    f"{path}: {named[0]} has {len(labels)} rows, {key} has {self.rows}; make the file again"
                )
            self._labels = labels.astype(np.int64)
            self.classes = tuple(map(str, range(int(self._labels.max(initial=0)) + 1)))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_array": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._array = load_array(self.path, self._key)

    def labels(self) -> NDArray[np.int64] | None:
        """Class index of every event, where the file has labels."""
        return self._labels

    def joined(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None) -> NDArray[Any]:
        """Some rows of the array."""
        parts = [np.asarray(self._array[start:stop]) for start, stop in runs]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined if take is None else joined.take(take, axis=0)


class ImageStackReader(_ArrayReader, VoxelReader):
    """Reads stacks of images as sparse cells with their intensity."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _value_key(path))
        if self._array.ndim not in (3, 4) or self._array.dtype.kind not in "fiub":
            raise DataError(
                f"{path}: has shape {self._array.shape} and type {self._array.dtype}; expected numbers (N, H, W)"
            )
        self.set_grid(image_grid(self._array.shape[1:]), (Column("intensity"),))

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Pixels ``(B, V)``."""
        yield 0, np.asarray(self._array[start:stop]).reshape(stop - start, -1)

    read = VoxelReader.read


class PointStackReader(_ArrayReader):
    """Reads stacks of point sets; their hits have positions and no features."""

    columns = ()

    def __init__(self, path: Path) -> None:
        super().__init__(path, _value_key(path))
        if self._array.ndim != 3 or self._array.shape[2] not in (2, 3) or self._array.dtype.kind != "f":
            raise DataError(
                f"{path}: has shape {self._array.shape} and type {self._array.dtype}; expected floats (N, P, 2 or 3)"
            )
        _, self.length, dim = self._array.shape
        self.axes = ("x", "y", "z")[:dim]
        self.grid = unit_box(dim)
        self.event_bytes = 4 * self.length * dim

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Point sets of some rows."""
        points = self.joined(runs, take)
        coords = torch.from_numpy(points.reshape(-1, len(self.axes)).astype(np.float32))
        return Events(
            coords,
            coords.new_zeros(len(coords), 0),
            torch.arange(len(points) + 1) * self.length,
            axes=self.axes,
            columns=(),
            grid=self.grid,
            ids=rows_of(runs, take),
        )


class QuarkGluonReader(_ArrayReader):
    """Reads quark-gluon jets; classes are ``gluon`` and ``quark``."""

    axes = ("yrel", "phirel")
    columns = (Column("ptrel"), Column("pdgid", additive=False))
    conditions = JET_CONDITIONS

    def __init__(self, path: Path) -> None:
        super().__init__(path, "X")
        if self._array.ndim != 3 or self._array.shape[2] != 4 or self._array.dtype.kind != "f":
            raise DataError(
                f"{path}: key 'X' has shape {self._array.shape} and type {self._array.dtype}; expected floats (N, M, 4)"
            )
        self.classes = ("gluon", "quark")
        self.grid = Grid.regular((64, 64), (-0.4, -0.4), (0.4, 0.4), self.axes, ("", "rad"))
        self.event_bytes = 32 * self._array.shape[1]

    def read(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None = None) -> Events:
        """Jets of some rows, padding left out; particles count as massless."""
        particles = self.joined(runs, take)
        mask = (particles != 0).any(-1)
        pt, rapidity, phi, code = particles[mask].T
        assert self.grid is not None
        return jet_events(
            pt,
            rapidity,
            phi,
            pt * np.cosh(rapidity),
            mask.sum(1),
            {self.columns[1]: code},
            axes=self.axes,
            grid=self.grid,
            ids=rows_of(runs, take),
        )

    def findings(self) -> Iterator[Finding]:
        """Labels that are neither 0 nor 1."""
        labels = self._labels
        if labels is None:
            yield Finding(str(self.path), "y", -1, "is missing", "copy or make the file again")
            return
        for row in np.flatnonzero((labels != 0) & (labels != 1)):
            yield Finding(str(self.path), "y", int(row), f"is {labels[row]}, expected 0 or 1")


def write_images(events: Events, path: Path, overwrite: bool = False) -> None:
    """Write cells of images as a stack ``(N, H, W)`` or ``(N, Z, Y, X)``, a ``.npy`` file.

    Raises:
        DataError: They are no images: cells of unit size with the one column ``intensity``.
    """
    events = events.detach().to("cpu")
    grid = events.grid
    fits = events.is_cells and grid is not None and grid.dim in (2, 3) and grid == image_grid(grid.shape)
    if not fits or [c.name for c in events.columns] != ["intensity"] or events.conditions:
        raise DataError(
            f"{path}: an image stack holds the column intensity on unit cells, no conditions; given {events} on {grid}"
        )
    assert grid is not None
    rows = max(1, 2**22 // grid.cells)
    with whole_file(path, overwrite) as part:
        stack = np.lib.format.open_memmap(part, "w+", np.dtype("<f4"), (len(events), *grid.shape))
        for start in range(0, len(events), rows):
            some = events[start : start + rows]
            stack[start : start + len(some)] = some.to_dense()[:, 0].float().numpy()
        stack.flush()


def write_points(events: Events, path: Path, overwrite: bool = False) -> None:
    """Write point sets of equal size as a stack ``(N, P, D)``, a ``.npy`` file.

    Raises:
        DataError: They have features or conditions, other axes than x, y, z, or different sizes.
    """
    dim = len(events.axes)
    bare = not events.is_cells and not events.columns and not events.conditions
    if not bare or dim not in (2, 3) or events.axes != ("x", "y", "z")[:dim]:
        raise DataError(f"{path}: a point stack holds bare points in x, y (and z); given {events}")
    length = int(events.counts[0])
    odd = (events.counts != length).nonzero()[:, 0]
    if len(odd):
        event = int(odd[0])
        raise DataError(
            f"{path}: a point stack holds sets of one size; event 0 has {length} points and event {event} "
            f"{int(events.counts[event])}: write format ragged"
        )
    with whole_file(path, overwrite) as part, part.open("wb") as file:
        np.save(file, events.detach().to("cpu").coords.float().reshape(len(events), length, dim).numpy())


def _is_npy(path: Path) -> bool:
    """Whether a path is a ``.npy`` file, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def _archive_keys(path: Path) -> tuple[str, ...]:
    """Arrays of a ``.npz`` file; none where the path is another file."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return ()
    return _keys(path)


def _is_points(path: Path) -> bool:
    """Whether the last axis of a stack is a coordinate."""
    if _is_npy(path):
        shape, kind = load_array(path).shape, load_array(path).dtype.kind
        return len(shape) == 3 and shape[2] in (2, 3) and kind == "f"
    keys = _archive_keys(path)
    if "points" in keys or "x" not in keys:
        return "points" in keys
    x = load_array(path, "x")
    return x.ndim == 3 and x.shape[2] in (2, 3) and x.dtype.kind == "f"


def _is_images(path: Path) -> bool:
    if _is_npy(path):
        return not _is_points(path)
    keys = _archive_keys(path)
    return "images" in keys or ("x" in keys and not _is_points(path))


def _is_quark_gluon(path: Path) -> bool:
    return "X" in _archive_keys(path)


formats.register("images")(
    Format("images", "NumPy stacks of images", (".npy", ".npz"), _is_images, ImageStackReader, write_images)
)
formats.register("points")(
    Format("points", "NumPy stacks of point sets", (".npy", ".npz"), _is_points, PointStackReader, write_points)
)
formats.register("quarkgluon")(
    Format("quarkgluon", "quark-gluon jets, NumPy archive", (".npz",), _is_quark_gluon, QuarkGluonReader)
)
