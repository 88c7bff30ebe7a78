"""IDX files, as MNIST comes: images of bytes, gzipped or not, with labels beside them.

``train-images-idx3-ubyte`` has its labels in ``train-labels-idx1-ubyte``. Intensities are divided by 255.

References:
    Gradient-based learning applied to document recognition, LeCun et al., 1998, https://doi.org/10.1109/5.726791
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sparsegen.data.dense import image_grid, images_only
from sparsegen.data.files import whole_file
from sparsegen.data.formats import Format, formats
from sparsegen.data.labels import class_names
from sparsegen.data.mapped import Loaded, MappedArray, inflated, mapped, values_of
from sparsegen.data.source import EventsSource
from sparsegen.data.voxels import VoxelReader
from sparsegen.errors import DataError
from sparsegen.events import Column

__all__ = ["IDXReader", "read_idx", "write_idx"]

_UBYTE = 8
_GZIP = b"\x1f\x8b"
_BYTES = np.dtype(np.uint8)


def read_idx(path: Path) -> Loaded:
    """The array of an IDX file of bytes: mapped, or inflated where it is gzipped.

    Raises:
        DataError: It is no IDX file of bytes, it is cut short, or there is no room to inflate it.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _UBYTE:
                raise DataError(f"{path}: not an IDX file of bytes, it begins with {head.hex()}; copy it again")
            shape = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
            if zipped:
                return inflated(file, _BYTES, shape, str(path))
            start = 4 + 4 * head[3]
            held = path.stat().st_size - start
            if held != math.prod(shape):
                raise EOFError(f"holds {held} bytes, expected {math.prod(shape)} for shape {shape}")
            return mapped(path, _BYTES, shape, start)
    except DataError:
        raise
    except (EOFError, OSError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: cut short or damaged ({error}); copy it again") from None


def _labels_path(path: Path) -> Path:
    """Where the labels of an image file lie; itself where its name does not say."""
    return path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))


class IDXReader(VoxelReader):
    """Reads IDX images as sparse cells (y, x) with their intensity in (0, 1]."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._images = MappedArray(read_idx, path)
        shape = self._images.values.shape
        if len(shape) < 2:
            raise DataError(f"{path}: holds {len(shape)} dimensions; open the images, not the labels")
        self.rows = len(self._images)
        labels = _labels_path(path)
        self._labels: NDArray[np.int64] | None = None
        if labels != path and labels.exists():
            self._labels = values_of(read_idx(labels)).astype(np.int64)
            if self._labels.shape != (self.rows,):
                raise DataError(f"{labels}: {len(self._labels)} labels for {self.rows} images; copy both again")
            self.classes = class_names(self._labels)
        self.set_grid(image_grid(shape[1:]), (Column("intensity"),))

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Intensities ``(B, V)``."""
        images = self._images.rows(start, stop)
        yield 0, images.reshape(len(images), -1) / np.float32(255)

    def labels(self) -> NDArray[np.int64] | None:
        """Class index of every image, where a label file lies beside it."""
        return self._labels


def write_idx(source: EventsSource, path: Path, overwrite: bool = False) -> None:
    """Write images as IDX bytes, gzipped where the name ends in ``.gz``; labels go into the file beside it.

    Classes are stored by number: by their name where it is one, else by their place.

    Raises:
        DataError: They are no images, an intensity is not a multiple of 1/255, or labels have no place.
    """
    events = source.events.detach().to("cpu")
    grid = images_only(events, path, "IDX")
    values = events.features[:, 0].float().numpy()
    places = np.rint(values * 255)
    odd = np.flatnonzero((places < 1) | (places > 255) | (places.astype(np.float32) / np.float32(255) != values))
    if len(odd):
        event = int(events.batch[odd[0]])
        raise DataError(
            f"{path}: IDX holds bytes; an intensity of event {event} is {values[odd[0]]:g}, no multiple of 1/255 in "
            "(0, 1]: write format images"
        )
    beside = _labels_path(path)
    if beside == path and source.labels is not None:
        raise DataError(
            f"{path}: labels lie beside an IDX file; name it ...-images-idx3-ubyte, so that theirs is known"
        )
    if source.labels is None and beside != path and beside.exists():
        raise DataError(
            f"{path}: would be read with the labels of {beside.name} beside it; remove that or name it otherwise"
        )
    rows = max(1, 2**22 // grid.cells)

    def images() -> Iterator[NDArray[np.uint8]]:
        for start in range(0, len(events), rows):
            dense = events[start : start + rows].to_dense()[:, 0].float().numpy()
            yield np.rint(dense * 255).astype(np.uint8)

    with ExitStack() as stack:
        zipped = path.suffix == ".gz"
        _write(stack.enter_context(whole_file(path, overwrite)), zipped, (len(events), *grid.shape), images())
        if source.labels is not None:
            numbers = _numbers(source, path)
            _write(stack.enter_context(whole_file(beside, overwrite)), zipped, (len(numbers),), [numbers])


def _numbers(source: EventsSource, path: Path) -> NDArray[np.uint8]:
    """The byte of each event's class."""
    assert source.labels is not None
    numeric = all(name.isascii() and name.isdigit() for name in source.classes)
    numbers = np.array([int(name) for name in source.classes] if numeric else range(len(source.classes)))
    if numbers.max() > 255:
        raise DataError(f"{path}: IDX holds the class in a byte; given class {numbers.max()}: write format images")
    return numbers.astype(np.uint8)[source.labels.numpy()]


def _write(part: Path, zipped: bool, shape: tuple[int, ...], pieces: Iterable[NDArray[np.uint8]]) -> None:
    head = bytes([0, 0, _UBYTE, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    with part.open("wb") as raw:
        # Without the time, so that the same images give the same file
        file: BinaryIO | gzip.GzipFile = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if zipped else raw
        with file:
            file.write(head)
            for piece in pieces:
                file.write(piece.tobytes())


def _matches(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == _GZIP:
        try:
            with gzip.open(path) as file:
                head = file.read(4)
        except (EOFError, OSError, zlib.error):
            return "idx" in path.name
    return len(head) == 4 and head[:2] == b"\0\0" and head[2] == _UBYTE and 1 <= head[3] <= 4


formats.register("idx")(
    Format(
        "idx",
        "IDX images, as MNIST comes",
        ("-images-idx3-ubyte", "-images-idx3-ubyte.gz"),
        _matches,
        IDXReader,
        write_idx,
        labels=True,
    )
)
