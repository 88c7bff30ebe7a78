"""Active cells of dense events: what a reader hands on of a calorimeter's array."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsegen.errors import DataError
from sparsegen.kernels.native import extension, resolve

__all__ = ["active_cells"]

_ENGINES = ("native", "numpy")
_SUFFIXES = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}
_NATIVE_AXES = 4


def active_cells(
    values: NDArray[np.generic], table: Tensor, threshold: float = 0.0, engine: str = "auto"
) -> tuple[Tensor, Tensor, Tensor]:
    """Active cells of flat dense events: magnitude above a threshold in some channel, or not a number.

    Args:
        values: ``(B, V)`` or, with several channels, ``(B, C, V)``.
        table: The cell of each of the V places ``(V, D)`` int64, rising.
        threshold: In the unit of the values, 0 or more.
        engine: ``native`` (one channel of floats, at most four axes), ``numpy``, or ``auto``.

    Returns:
        Cells ``(N, D)``, features ``(N, C)`` float32 and offsets ``(B + 1,)``.

    Raises:
        DataError: Shapes that do not fit.

    Example:
        >>> table = torch.tensor([[0, 0], [0, 1], [1, 0]])
        >>> active_cells(np.array([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]]), table)[0].tolist()
        [[0, 1], [0, 0], [1, 0]]
    """
    if values.ndim not in (2, 3) or values.shape[-1] != len(table):
        raise DataError(f"active_cells: values {values.shape} for a table of {len(table)} cells")
    suffix = _SUFFIXES.get(values.dtype) if values.ndim == 2 and table.shape[1] <= _NATIVE_AXES else None
    if resolve(engine, _ENGINES, (table,), "numpy") == "numpy" or (engine == "auto" and suffix is None):
        return _numpy(values, table, threshold)
    if suffix is None:
        raise DataError(
            f"active_cells: the native engine takes floats (B, V) and at most {_NATIVE_AXES} axes, "
            f"not {values.dtype} {values.shape} and {table.shape[1]} axes"
        )
    native = extension()
    assert native is not None
    values, table = np.ascontiguousarray(values), table.contiguous()
    rows, cells = values.shape
    bits = np.empty(rows * (-(-cells // 64)), dtype=np.uint64)
    counts = np.empty(rows, dtype=np.int64)
    getattr(native, f"mark_active_{suffix}")(
        values.ctypes.data, rows, cells, float(threshold), bits.ctypes.data, counts.ctypes.data
    )
    offsets = torch.zeros(rows + 1, dtype=torch.int64)
    torch.cumsum(torch.from_numpy(counts), 0, out=offsets[1:])
    hits = int(offsets[-1])
    # NumPy asks for huge pages, which spares most of the cost of fresh memory
    coords = torch.from_numpy(np.empty((hits, table.shape[1]), dtype=np.int64))
    features = torch.from_numpy(np.empty((hits, 1), dtype=np.float32))
    getattr(native, f"list_active_{suffix}")(
        values.ctypes.data,
        rows,
        cells,
        bits.ctypes.data,
        table.data_ptr(),
        table.shape[1],
        coords.data_ptr(),
        features.data_ptr(),
    )
    return coords, features, offsets


def _numpy(values: NDArray[np.generic], table: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    active = ~(np.abs(values) <= threshold) if threshold > 0 else values != 0
    if values.ndim == 3:
        active = active.any(1)
    index = _flat_index(active)
    offsets = np.searchsorted(index, np.arange(len(values) + 1) * active.shape[1])
    event, place = np.divmod(index, active.shape[1])
    features = values[event, :, place] if values.ndim == 3 else values.reshape(-1).take(index)[:, None]
    return (
        table.index_select(0, torch.from_numpy(place)),
        torch.from_numpy(features.astype(np.float32, copy=False)),
        torch.from_numpy(offsets.astype(np.int64, copy=False)),
    )


def _flat_index(active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Flat positions of what is True, as ``flatnonzero``, and four times as fast where little is."""
    flat = active.reshape(-1)
    whole = len(flat) // 4 * 4
    # Four flags a word: first the words with any, then the flags inside them
    packed = flat[:whole].view(np.uint32)
    words = np.flatnonzero(packed != 0)
    inside = np.flatnonzero(packed.take(words).view(np.bool_))
    index = words.take(inside >> 2)
    index *= 4
    inside &= 3
    index += inside
    return np.concatenate([index, whole + np.flatnonzero(flat[whole:])]) if whole < len(flat) else index
