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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsegen.data.dense import image_grid
from sparsegen.data.formats import Format, formats
from sparsegen.data.voxels import VoxelReader
from sparsegen.errors import DataError
from sparsegen.events import Column

__all__ = ["IDXReader", "read_idx", "write_idx"]

_UBYTE = 8
_GZIP = b"\x1f\x8b"


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes; mapped, not loaded, where it is not gzipped.

    Raises:
        DataError: It is no IDX file of bytes, or it is cut short.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _UBYTE:
                raise DataError(f"{path}: not an IDX file of bytes, it begins with {head.hex()}; copy it again")
            shape = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
            start = 4 + 4 * head[3]
            if zipped:
                values = np.frombuffer(file.read(), dtype=np.uint8)
            else:
                values = (
                    np.memmap(path, dtype=np.uint8, mode="r", offset=start) if math.prod(shape) else np.empty(0, "u1")
                )
    except (EOFError, OSError, struct.error, zlib.error) as error:
        raise DataError(f"{path}: cut short or damaged ({error}); copy it again") from None
    if len(values) != math.prod(shape):
        raise DataError(
            f"{path}: holds {len(values)} bytes, expected {math.prod(shape)} for shape {shape}; copy it again"
        )
    return values.reshape(shape)


def write_idx(values: NDArray[np.uint8], path: Path) -> None:
    """Write an array of bytes as an IDX file."""
    head = bytes([0, 0, _UBYTE, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(head + np.ascontiguousarray(values, dtype=np.uint8).tobytes())


class IDXReader(VoxelReader):
    """Reads IDX images as sparse cells (y, x) with their intensity in (0, 1]."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._images = read_idx(path)
        if self._images.ndim < 2:
            raise DataError(f"{path}: holds {self._images.ndim} dimensions; open the images, not the labels")
        self.rows = len(self._images)
        labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
        self._labels: NDArray[np.int64] | None = None
        if labels != path and labels.exists():
            self._labels = read_idx(labels).astype(np.int64)
            if self._labels.shape != (self.rows,):
                raise DataError(f"{labels}: {len(self._labels)} labels for {self.rows} images; copy both again")
            self.classes = tuple(map(str, range(int(self._labels.max(initial=0)) + 1)))
        self.set_grid(image_grid(self._images.shape[1:]), (Column("intensity"),))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_images": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._images = read_idx(self.path)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Intensities ``(B, V)``."""
        images = self._images[start:stop]
        yield 0, images.reshape(len(images), -1) / np.float32(255)

    def labels(self) -> NDArray[np.int64] | None:
        """Class index of every image, where a label file lies beside it."""
        return self._labels


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


formats.register("idx")(Format("idx", "IDX images, as MNIST comes", ("-ubyte", ".gz"), _matches, IDXReader))
