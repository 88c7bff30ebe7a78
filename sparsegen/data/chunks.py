"""The chunks of an HDF5 data set, inflated one at a time.

HDF5 inflates a chunk into memory that it grows by doubling, then copies what was asked for, and keeps the chunk in case
it is asked for again. Events are read chunk by chunk anyway, so chunks of which most is wanted are taken as they are
stored and inflated once; where a chunk is not stored under gzip alone, HDF5 reads it.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["CACHE_BYTES", "ChunkedData"]

CACHE_BYTES = 2**20
"""Chunks of a data set that HDF5 may keep, so that small reads in order do not inflate a chunk again and again."""

_PIECE_BYTES = 16 * 2**20
"""Smaller chunks are joined to pieces of this size."""

Bounds = Sequence[tuple[int, int]]


class ChunkedData:
    """An HDF5 data set, read by blocks.

    Args:
        data: The data set, chunked or not, of any number of axes.

    Raises:
        OSError: While reading, a chunk is damaged.
    """

    def __init__(self, data: h5py.Dataset) -> None:
        self.data = data
        self._shape: tuple[int, ...] | None = data.chunks if _only_deflate(data) else None

    def block(self, bounds: Bounds, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The values between ``(start, stop)`` along the first axes, and all along the others.

        Args:
            bounds: Inside the data set's shape.
            out: Where to put them; else they may be part of a chunk, which cannot be written to.
        """
        data, chunk = self.data, self._shape
        bounds = (*bounds, *((0, n) for n in data.shape[len(bounds) :]))
        if chunk is None and out is None:
            return np.asarray(data[_slices(bounds)])
        if chunk is not None and out is None and self._in_one_chunk(bounds):
            return self._part_of_chunk(bounds, chunk)
        if out is None:
            out = np.empty([stop - start for start, stop in bounds], dtype=data.dtype)
        if chunk is None:
            if out.size:
                data.read_direct(out, _slices(bounds))
            return out
        corners = (range(start // n * n, stop, n) for (start, stop), n in zip(bounds, chunk, strict=True))
        for corner in itertools.product(*corners):
            inside = [
                (max(first, start), min(first + n, stop))
                for first, n, (start, stop) in zip(corner, chunk, bounds, strict=True)
            ]
            place = [(a - start, b - start) for (a, b), (start, _) in zip(inside, bounds, strict=True)]
            out[_slices(place)] = self._part_of_chunk(inside, chunk)
        return out

    def column_pieces(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Rows of a table ``(N, V)``, some columns at a time: those of a chunk, or of a few small ones.

        Args:
            start: First row.
            stop: One past the last row.

        Yields:
            The first column, and the values ``(stop - start, v)``, which the next step may overwrite.
        """
        rows, (_, columns) = stop - start, self.data.shape
        width = self.data.chunks[1] if self.data.chunks else 1
        room = _PIECE_BYTES // max(1, rows * self.data.dtype.itemsize)
        wide = columns if width < columns <= room else max(width, room // width * width)
        buffer: NDArray[Any] | None = None
        for first in range(0, columns, wide):
            last = min(first + wide, columns)
            bounds = ((start, stop), (first, last))
            piece = None
            if not self._in_one_chunk(bounds):
                buffer = np.empty(rows * wide, dtype=self.data.dtype) if buffer is None else buffer
                piece = buffer[: rows * (last - first)].reshape(rows, last - first)
            yield first, self.block(bounds, piece)

    def _in_one_chunk(self, bounds: Bounds) -> bool:
        return self._shape is not None and all(
            start < stop and start // n == (stop - 1) // n for (start, stop), n in zip(bounds, self._shape, strict=True)
        )

    def _part_of_chunk(self, bounds: Bounds, shape: tuple[int, ...]) -> NDArray[Any]:
        """Values that lie in one chunk."""
        data = self.data
        size = math.prod(shape) * data.dtype.itemsize
        corner = tuple(start // n * n for (start, _), n in zip(bounds, shape, strict=True))
        held = math.prod(min(n, end - first) for first, n, end in zip(corner, shape, data.shape, strict=True))
        wanted = math.prod(stop - start for start, stop in bounds)
        # The rest of a chunk that HDF5 can keep may be asked for next
        whole = size > CACHE_BYTES or 2 * wanted > held
        stored = _stored_chunk(data, corner) if whole else None
        if stored is None:
            return np.asarray(data[_slices(bounds)])
        try:
            raw = zlib.decompress(stored, bufsize=size)
        except zlib.error as error:
            raise OSError(f"gzip: {error}") from None
        if len(raw) != size:
            raise OSError(f"a chunk of {len(raw)} bytes, expected {size}")
        values = np.frombuffer(raw, dtype=data.dtype).reshape(shape)
        return values[_slices([(a - first, b - first) for (a, b), first in zip(bounds, corner, strict=True)])]


def _slices(bounds: Bounds) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in bounds)


def _only_deflate(data: h5py.Dataset) -> bool:
    """Whether the chunks as stored are the values under gzip."""
    if data.chunks is None or data.dtype.kind not in "fiu" or h5py.h5t.py_create(data.dtype) != data.id.get_type():
        return False
    pipeline = data.id.get_create_plist()
    return bool(pipeline.get_nfilters() == 1 and pipeline.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE)


def _stored_chunk(data: h5py.Dataset, corner: tuple[int, ...]) -> bytes | None:
    """The bytes of a chunk as they are stored; None of one that was never written, or is stored unfiltered."""
    try:
        unfiltered, stored = data.id.read_direct_chunk(corner)
    except (MemoryError, RuntimeError):
        # h5py says so of a chunk that was never written
        return None
    return None if unfiltered else stored
