"""NumPy files: stacks of images or of point sets.

``.npy``: ``(N, H, W)`` or ``(N, Z, Y, X)`` are images; ``(N, P, 2)`` and ``(N, P, 3)`` are point sets of P points.
``.npz``: the same under ``images``, ``points`` or ``x``, with ``labels`` or ``y`` and the names of their ``classes``
beside it. What is not compressed, as ``numpy.savez`` leaves it, is read where it lies.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsegen.data.dense import image_grid, images_only
from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.labels import class_names
from sparsegen.data.mapped import Loaded, MappedArray, inflated, mapped, values_of
from sparsegen.data.reader import Finding, Reader, label_findings, rows_of
from sparsegen.data.source import EventsSource
from sparsegen.data.voxels import VoxelReader
from sparsegen.errors import DataError
from sparsegen.events import Column, Events
from sparsegen.grid import Grid

__all__ = [
    "ArrayReader",
    "ImageStackReader",
    "PointStackReader",
    "archive_keys",
    "load_array",
    "unit_box",
    "write_archive",
    "write_images",
    "write_points",
]

_MAGIC = b"\x93NUMPY"
_VALUES = ("images", "points", "x")
_LABELS = ("labels", "y")
_DAMAGE = (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def unit_box(dim: int, cells: int = 32) -> Grid:
    """The default lattice of point sets: the box ``[-1, 1]^dim``."""
    return Grid.regular((cells,) * dim, (-1.0,) * dim, (1.0,) * dim, ("x", "y", "z")[:dim])


def load_array(path: Path, key: str | None = None) -> Loaded:
    """The array of a ``.npy`` file, or one of a ``.npz`` file: mapped, or inflated where it is compressed.

    Raises:
        DataError: The file is damaged, holds Python objects, or is compressed and there is no room to inflate it.
    """
    try:
        if key is None:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(array, np.lib.npyio.NpzFile):
                array.close()
                raise ValueError("an archive, where one array is expected")
            return array, None
        with zipfile.ZipFile(path) as archive:
            if f"{key}.npy" not in archive.namelist():
                raise DataError(f"{path}: key {key!r} is missing; it has {', '.join(_keys(path)) or 'no arrays'}")
            member = archive.getinfo(f"{key}.npy")
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
                with path.open("rb") as file:
                    file.seek(member.header_offset + 26)
                    file.seek(sum(int.from_bytes(file.read(2), "little") for _ in range(2)), 1)
                    shape, order, dtype = _array_header(file)
                    return mapped(path, dtype, shape, file.tell(), order)
            with archive.open(member) as stream:
                shape, order, dtype = _array_header(stream)
                return inflated(stream, dtype, shape, f"{path}: array {key!r}", order)
    except DataError:
        raise
    except _DAMAGE as error:
        raise _unreadable(path, error) from None


def _array_header(file: IO[bytes]) -> tuple[tuple[int, ...], str, np.dtype[Any]]:
    """Shape, order and type of the array that a stream holds, and the stream after them."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"version {version} of the format")
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, "F" if fortran else "C", dtype


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a readable NumPy file ({error}); copy or make it again")


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


class ArrayReader(Reader):
    """Base of readers over one array with a row an event, and its labels."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.path = path
        self._key = key
        self._array = MappedArray(load_array, path, key)
        self.rows = len(self._array)
        self._labels: NDArray[np.int64] | None = None
        keys = () if key is None else _keys(path)
        for name in [name for name in _LABELS if name in keys][:1]:
            labels = values_of(load_array(path, name)).reshape(-1)
            if len(labels) != self.rows:
                raise DataError(f"{path}: {name} has {len(labels)} rows, {key} has {self.rows}; make the file again")
            if labels.dtype.kind not in "fiub" or (labels != np.rint(labels)).any():
                raise DataError(
                    f"{path}: {name} holds {labels.dtype} values that are no whole numbers; expected class indices, "
                    "with names in the array classes"
                )
            self._label_key = name
            self._labels = labels.astype(np.int64)
            self.classes = class_names(self._labels)
            if "classes" in keys:
                names = tuple(map(str, values_of(load_array(path, "classes"))))
                if len(names) < len(self.classes):
                    raise DataError(
                        f"{path}: classes names {len(names)}, {name} counts {len(self.classes)}; name them all"
                    )
                self.classes = names

    def labels(self) -> NDArray[np.int64] | None:
        """Class index of every event, where the file has labels."""
        return self._labels

    def joined(self, runs: Sequence[tuple[int, int]], take: NDArray[np.int64] | None) -> NDArray[Any]:
        """Some rows of the array."""
        parts = [self._array.rows(start, stop) for start, stop in runs]
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return joined if take is None else joined.take(take, axis=0)

    def findings(self) -> Iterator[Finding]:
        """Damage, and labels without a class."""
        yield from self.damage()
        if self._labels is not None:
            yield from label_findings(self.path, self._label_key, self._labels, self.classes)

    def damage(self) -> Iterator[Finding]:
        """An array that is mapped where it lies, not inflated, and does not match the archive's checksum."""
        if self._key is None:
            return
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{self._key}.npy") as stream:
                plain = archive.getinfo(f"{self._key}.npy").compress_type == zipfile.ZIP_STORED
                while plain and stream.read(2**22):
                    pass
        except _DAMAGE:
            yield Finding(str(self.path), self._key, -1, "does not match its checksum", "copy or make the file again")


class ImageStackReader(ArrayReader, VoxelReader):
    """Reads stacks of images as sparse cells with their intensity."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _value_key(path))
        images = self._array.values
        if images.ndim not in (3, 4) or images.dtype.kind not in "fiub":
            raise DataError(f"{path}: has shape {images.shape} and type {images.dtype}; expected numbers (N, H, W)")
        self.set_grid(image_grid(images.shape[1:]), (Column("intensity"),))

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Pixels ``(B, V)``."""
        yield 0, self._array.rows(start, stop).reshape(stop - start, -1)

    read = VoxelReader.read


class PointStackReader(ArrayReader):
    """Reads stacks of point sets; their hits have positions and no features."""

    columns = ()

    def __init__(self, path: Path) -> None:
        super().__init__(path, _value_key(path))
        points = self._array.values
        if points.ndim != 3 or points.shape[2] not in (2, 3) or points.dtype.kind != "f":
            raise DataError(f"{path}: has shape {points.shape} and type {points.dtype}; expected floats (N, P, 2 or 3)")
        _, self.length, dim = points.shape
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


def write_images(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write cells of images as a stack ``(N, H, W)`` or ``(N, Z, Y, X)``, a ``.npy`` or, with labels, ``.npz`` file.

    Raises:
        DataError: They are no images: cells of unit size with the one column ``intensity``.
    """
    events = source.events.detach().to("cpu")
    grid = images_only(events, path, "an image stack")
    rows = max(1, 2**22 // grid.cells)
    images = (events[start : start + rows].to_dense()[:, 0].float().numpy() for start in range(0, len(events), rows))
    _write_stack(source, path, "images", (len(events), *grid.shape), images, overwrite)


def write_points(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write point sets of equal size as a stack ``(N, P, D)``, a ``.npy`` or, with labels, ``.npz`` file.

    Raises:
        DataError: They have features or conditions, other axes than x, y, z, or different sizes.
    """
    events = source.events.detach().to("cpu")
    dim = len(events.axes)
    if events.is_cells or events.columns or events.conditions or dim < 2 or events.axes != ("x", "y", "z")[:dim]:
        raise DataError(f"{path}: a point stack holds bare points in x, y (and z); given {events}")
    length = one_size(events, path, "a point stack")
    points = events.coords.float().reshape(len(events), length, dim).numpy()
    _write_stack(source, path, "points", points.shape, [points], overwrite)


def one_size(events: Events, path: Path, format: str) -> int:
    """How many points each event has, where that is one number.

    Raises:
        DataError: Two events differ.
    """
    length = int(events.counts[0])
    odd = (events.counts != length).nonzero()[:, 0]
    if len(odd):
        event = int(odd[0])
        raise DataError(
            f"{path}: {format} holds sets of one size; event 0 has {length} points and event {event} "
            f"{int(events.counts[event])}: write format ragged"
        )
    return length


def _write_stack(
    source: EventsSource,
    path: Path,
    key: str,
    shape: tuple[int, ...],
    rows: Iterable[NDArray[np.float32]],
    overwrite: bool,
) -> None:
    if source.labels is not None and path.suffix == ".npy":
        raise DataError(f"{path}: a .npy file has no place for labels; name it .npz, or leave them out")
    if source.labels is None and path.suffix != ".npz":
        with whole_file(path, overwrite) as part, part.open("wb") as file:
            _write_array(file, np.dtype("<f4"), shape, rows)
        return
    labels = {} if source.labels is None else {"labels": source.labels.numpy(), "classes": np.array(source.classes)}
    write_archive(path, key, shape, rows, labels, overwrite)


def write_archive(
    path: Path,
    key: str,
    shape: tuple[int, ...],
    rows: Iterable[NDArray[Any]],
    beside: Mapping[str, NDArray[Any]],
    overwrite: bool,
    dtype: str = "<f4",
) -> None:
    """Write a ``.npz`` file whose first array comes in pieces, uncompressed so that it can be read where it lies.

    Args:
        path: The file to make.
        key: Name of the first array.
        shape: Its shape.
        rows: Its rows, some at a time.
        beside: Further arrays.
        overwrite: Whether an existing file may be replaced.
        dtype: Type of the first array.
    """
    with whole_file(path, overwrite) as part, zipfile.ZipFile(part, "w") as archive:
        with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
            _write_array(file, np.dtype(dtype), shape, rows)
        for name, values in beside.items():
            with archive.open(f"{name}.npy", "w") as file:
                _write_array(file, values.dtype, values.shape, [values])


def _write_array(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...], rows: Iterable[NDArray[Any]]) -> None:
    head = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, head)
    for some in rows:
        file.write(np.ascontiguousarray(some, dtype).tobytes())


def _is_npy(path: Path) -> bool:
    """Whether a path is a ``.npy`` file, by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def archive_keys(path: Path) -> tuple[str, ...]:
    """Arrays of a ``.npz`` file; none where the path is another file."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return ()
    return _keys(path)


def _head(path: Path, key: str | None) -> tuple[tuple[int, ...], str]:
    """Shape and kind of an array, of which nothing else is read."""
    try:
        if key is None:
            with path.open("rb") as file:
                shape, _, dtype = _array_header(file)
        else:
            with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
                shape, _, dtype = _array_header(stream)
    except _DAMAGE as error:
        raise _unreadable(path, error) from None
    return shape, dtype.kind


def _is_points(path: Path) -> bool:
    """Whether the last axis of a stack is a coordinate."""
    keys = () if _is_npy(path) else archive_keys(path)
    if not _is_npy(path) and ("points" in keys or "x" not in keys):
        return "points" in keys
    shape, kind = _head(path, "x" if keys else None)
    return len(shape) == 3 and shape[2] in (2, 3) and kind == "f"


def _is_images(path: Path) -> bool:
    if _is_npy(path):
        return not _is_points(path)
    keys = archive_keys(path)
    return "images" in keys or ("x" in keys and not _is_points(path))


formats.register("images")(
    Format(
        "images", "NumPy stacks of images", (".npy", ".npz"), _is_images, ImageStackReader, write_images, labels=True
    )
)
formats.register("points")(
    Format(
        "points",
        "NumPy stacks of point sets",
        (".npy", ".npz"),
        _is_points,
        PointStackReader,
        write_points,
        labels=True,
    )
)
