"""The chunks of an HDF5 table, inflated one at a time.

HDF5 inflates a chunk into memory that it grows by doubling, then copies what was asked for. A table of dense events is
read chunk by chunk anyway, so its chunks are taken as they are stored and inflated once; where a chunk is not stored
under gzip alone, HDF5 reads it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["column_pieces"]

_PIECE_BYTES = 16 * 2**20
"""Smaller chunks are joined to pieces of this size."""


def column_pieces(data: h5py.Dataset, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """Rows ``start:stop`` of a table ``(N, V)``, some columns at a time: those of a chunk, or of a few small ones.

    Args:
        data: The table.
        start: First row.
        stop: One past the last row.

    Yields:
        The first column, and the values ``(stop - start, v)``, which the next step may overwrite.

    Raises:
        OSError: A chunk is damaged.
    """
    rows, columns = stop - start, data.shape[1]
    chunks: tuple[int, int] = data.chunks or (max(rows, 1), 1)
    height, width = chunks
    room = _PIECE_BYTES // max(1, rows * data.dtype.itemsize)
    wide = columns if width < columns <= room else max(width, room // width * width)
    direct = _only_deflate(data)
    one_chunk = direct and wide == width and start % height == 0 and 0 < rows <= height
    buffer = None if one_chunk else np.empty(rows * wide, dtype=data.dtype)
    for first in range(0, columns, wide):
        last = min(first + wide, columns)
        if buffer is None:
            yield first, _chunk(data, start, first, chunks)[:rows, : last - first]
            continue
        piece = buffer[: rows * (last - first)].reshape(rows, last - first)
        if not direct:
            data.read_direct(piece, np.s_[start:stop, first:last])
        else:
            for row in range(start // height * height, stop, height):
                inside = slice(max(row, start), min(row + height, stop))
                band = piece[inside.start - start : inside.stop - start]
                for column in range(first, last, width):
                    values = _chunk(data, row, column, chunks)[inside.start - row : inside.stop - row, : last - column]
                    band[:, column - first : column - first + width] = values
        yield first, piece


def _only_deflate(data: h5py.Dataset) -> bool:
    if data.chunks is None:
        return False
    pipeline = data.id.get_create_plist()
    return bool(pipeline.get_nfilters() == 1 and pipeline.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE)


def _chunk(data: h5py.Dataset, row: int, column: int, shape: tuple[int, int]) -> NDArray[Any]:
    """One whole chunk, what lies beyond the table's edge included."""
    try:
        unfiltered, stored = data.id.read_direct_chunk((row, column))
    except (MemoryError, RuntimeError):
        # h5py says so of a chunk that was never written
        unfiltered, stored = 1, b""
    if unfiltered:
        whole = np.zeros(shape, dtype=data.dtype)
        part = data[row : row + shape[0], column : column + shape[1]]
        whole[: part.shape[0], : part.shape[1]] = part
        return whole
    size = shape[0] * shape[1] * data.dtype.itemsize
    try:
        raw = zlib.decompress(stored, bufsize=size)
    except zlib.error as error:
        raise OSError(f"gzip: {error}") from None
    if len(raw) != size:
        raise OSError(f"a chunk of {len(raw)} bytes, expected {size}")
    return np.frombuffer(raw, dtype=data.dtype).reshape(shape)
