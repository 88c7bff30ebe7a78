"""Active cells of dense events: every engine and instruction set against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsegen.errors import DataError
from sparsegen.kernels import active_cells


def plain(values, table, threshold=0.0):
    """Cells, features and offsets by a loop over events."""
    channels = values[:, None] if values.ndim == 2 else values
    coords, features, offsets = [], [], [0]
    for event in channels:
        places = np.nonzero((~(np.abs(event) <= threshold)).any(0))[0]
        coords.append(table[places])
        features.append(torch.from_numpy(event[:, places].T.astype(np.float32)))
        offsets.append(offsets[-1] + len(places))
    return torch.cat(coords), torch.cat(features), torch.tensor(offsets)


def dense(rows, cells, dtype, occupancy=0.1, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((rows, cells)) * (rng.random((rows, cells)) < occupancy)
    return values.astype(dtype)


def same(one, other):
    return all(
        torch.equal(a.nan_to_num(7.5), b.nan_to_num(7.5)) and a.dtype == b.dtype
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cells", [1, 15, 16, 63, 64, 65, 200])
def test_native_equals_the_loop_for_rows_of_any_length(level, dtype, cells):
    table = torch.arange(3 * cells).reshape(cells, 3)
    for occupancy in (0.0, 0.1, 1.0):
        values = dense(7, cells, dtype, occupancy)
        assert same(active_cells(values, table, engine="native"), plain(values, table))


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_native_copies_cells_of_any_dimension(level, dim):
    table = torch.arange(dim * 70).reshape(70, dim)
    values = dense(5, 70, np.float32)
    assert same(active_cells(values, table, engine="native"), plain(values, table))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_thresholds_are_strict_and_what_is_not_a_number_is_active(level, dtype):
    values = np.array([[0.0, -0.0, 1e-3, -1e-3, 2e-3, -2e-3, np.nan, np.inf, -np.inf, 1e-45] * 7], dtype=dtype)
    table = torch.arange(70)[:, None]
    for threshold in (0.0, float(dtype(1e-3))):
        native = active_cells(values, table, threshold, engine="native")
        assert same(native, active_cells(values, table, threshold, engine="numpy"))
        assert same(native, plain(values, table, threshold))
    assert active_cells(values, table)[0][:8, 0].tolist() == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("values", [dense(6, 50, np.float32).astype(int), dense(6, 150, np.float32).reshape(6, 3, 50)])
def test_other_types_and_several_channels_take_the_general_path(values):
    table = torch.arange(100).reshape(50, 2)
    assert same(active_cells(values, table), plain(values, table))
    with pytest.raises(DataError, match=r"native engine takes floats \(B, V\)"):
        active_cells(values, table, engine="native")


def test_views_that_are_not_contiguous_and_empty_batches(level):
    table = torch.arange(40)[:, None]
    values = dense(9, 80, np.float32)
    assert same(active_cells(values[::2, ::2], table, engine="native"), plain(values[::2, ::2], table))
    coords, features, offsets = active_cells(values[:0, :40], table)
    assert (coords.shape, features.shape, offsets.tolist()) == ((0, 1), (0, 1), [0])


def test_a_table_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match="for a table of 3 cells"):
        active_cells(np.zeros((2, 4)), torch.zeros(3, 1, dtype=torch.int64))
