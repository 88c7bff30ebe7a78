"""From spots of energy to active cells, and from active cells to the compressed dense arrays that formats hold."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from sparsegen.errors import DataError
from sparsegen.kernels.native import extension, resolve

__all__ = ["deflate_cells", "sum_spots"]

_ENGINES = ("native", "numpy")


def sum_spots(
    spots: NDArray[np.integer],
    amounts: NDArray[np.float32],
    counts: NDArray[np.integer],
    cells: int,
    engine: str = "auto",
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Sum amounts by cell, event by event; the memory is that of one event's cells.

    Args:
        spots: Flat cell of each spot ``(N,)``, in ``[0, cells)``.
        amounts: What each adds ``(N,)``; added in this order.
        counts: Spots of each event ``(B,)``.
        cells: Cells of an event.
        engine: ``native``, ``numpy`` or ``auto``.

    Returns:
        Places ``event * cells + cell`` of what is not zero ``(M,)``, rising, and the sums there ``(M,)`` float32.

    Raises:
        DataError: Shapes that do not fit, or a spot outside the cells.

    Example:
        >>> places, sums = sum_spots(np.array([2, 0, 2]), np.ones(3, np.float32), np.array([1, 2]), 3)
        >>> places.tolist(), sums.tolist()
        ([2, 3, 5], [1.0, 1.0, 1.0])
    """
    if not len(spots) == len(amounts) == counts.sum():
        raise DataError(f"sum_spots: {len(spots)} spots, {len(amounts)} amounts and counts that sum to {counts.sum()}")
    if len(spots) and not 0 <= spots.min() <= spots.max() < cells:
        raise DataError(f"sum_spots: spots in cells {spots.min()} to {spots.max()}; expected 0 to {cells - 1}")
    offsets = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=offsets[1:])
    if resolve(engine, _ENGINES, (), "numpy") == "numpy":
        dense = np.zeros(len(counts) * cells, dtype=np.float32)
        np.add.at(dense, np.repeat(np.arange(len(counts)) * cells, counts) + spots, amounts)
        places = np.flatnonzero(dense)
        return places, dense[places]
    native = extension()
    assert native is not None
    spots = np.ascontiguousarray(spots, dtype=np.int32)
    amounts = np.ascontiguousarray(amounts, dtype=np.float32)
    places, sums = np.empty(len(spots), dtype=np.int64), np.empty(len(spots), dtype=np.float32)
    active = native.sum_spots(
        spots.ctypes.data,
        amounts.ctypes.data,
        offsets.ctypes.data,
        len(counts),
        cells,
        places.ctypes.data,
        sums.ctypes.data,
    )
    return places[:active], sums[:active]


def deflate_cells(places: NDArray[np.int64], values: NDArray[np.generic], size: int, engine: str = "auto") -> bytes:
    """The zlib stream of an array that is zero but in some cells, as HDF5's gzip filter stores a chunk.

    The native engine never makes the array: its time grows with the cells. Engines differ in the stream, not in what it
    inflates to.

    References:
        DEFLATE Compressed Data Format Specification version 1.3, Deutsch, 1996, https://www.rfc-editor.org/rfc/rfc1951

    Args:
        places: Where the values are ``(N,)``, rising, in ``[0, size)``.
        values: The values ``(N,)``, of any type of fixed width.
        size: Values of the array.
        engine: ``native``, ``numpy`` or ``auto``.

    Raises:
        DataError: Places that do not rise, lie outside, or are not as many as the values.

    Example:
        >>> stream = deflate_cells(np.array([1, 4]), np.array([7, 9], dtype="<i2"), 6)
        >>> np.frombuffer(zlib.decompress(stream), "<i2").tolist()
        [0, 7, 0, 0, 9, 0]
    """
    places, values = np.ascontiguousarray(places, dtype=np.int64), np.ascontiguousarray(values)
    if places.ndim != 1 or places.shape != values.shape:
        raise DataError(f"deflate_cells: places {places.shape} and values {values.shape}; expected one place a value")
    if len(places) and not (0 <= places[0] and places[-1] < size and (places[1:] > places[:-1]).all()):
        raise DataError(f"deflate_cells: places must rise from 0 to {size - 1}; given {places}")
    if resolve(engine, _ENGINES, (), "numpy") == "numpy":
        dense = np.zeros(size, dtype=values.dtype)
        dense[places] = values
        return zlib.compress(dense.tobytes(), 1)
    native = extension()
    assert native is not None
    width = values.dtype.itemsize
    stream = np.empty(native.deflate_room(len(places), width, size), dtype=np.uint8)
    written = native.deflate_cells(values.ctypes.data, places.ctypes.data, len(places), width, size, stream.ctypes.data)
    return stream[:written].tobytes()
