"""Spots to cells and cells to compressed arrays: every instruction set against NumPy and zlib."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from sparsegen.errors import DataError
from sparsegen.kernels import deflate_cells, sum_spots


@pytest.mark.parametrize("engine", ["native", "numpy"])
@pytest.mark.parametrize("cells", [1, 63, 64, 65, 1000])
def test_sums_are_those_of_adding_spot_by_spot(level, cells, engine):
    generator = np.random.default_rng(cells)
    counts = np.array([0, 500, 0, 3, 200, 0])
    spots = generator.integers(0, cells, counts.sum())
    amounts = generator.standard_normal(counts.sum()).astype(np.float32)
    dense = np.zeros((len(counts), cells), dtype=np.float32)
    np.add.at(dense, (np.repeat(np.arange(len(counts)), counts), spots), amounts)
    places, sums = sum_spots(spots, amounts, counts, cells, engine)
    assert places.tolist() == np.flatnonzero(dense).tolist()
    assert sums.tolist() == dense[dense != 0].tolist()


def test_spots_that_cancel_are_no_cell_and_what_is_not_a_number_is_one(level):
    amounts = np.array([1, -1, np.nan, 0, 2], dtype=np.float32)
    places, sums = sum_spots(np.array([0, 0, 1, 2, 0]), amounts, np.array([4, 1]), 3, "native")
    assert places.tolist() == [1, 3]
    assert np.isnan(sums[0])
    assert sums[1] == 2


@pytest.mark.parametrize("engine", ["native", "numpy"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2", "u1"])
def test_a_stream_inflates_to_the_array(level, dtype, engine):
    generator = np.random.default_rng(0)
    for size in [1, 2, 40, 700, 70_000]:
        for cells in {0, 1, min(size, 9), size // 3, size}:
            places = np.sort(generator.choice(size, cells, replace=False))
            # Bytes of every value, zero among them
            values = generator.integers(0, 256, cells * np.dtype(dtype).itemsize).astype("u1").view(dtype)
            dense = np.zeros(size, dtype=dtype)
            dense[places] = values
            assert zlib.decompress(deflate_cells(places, values, size, engine)) == dense.tobytes()


def test_zeros_of_every_length_between_values_are_kept(level):
    for gap in range(1, 800):
        places = np.array([0, gap + 1])
        inflated = zlib.decompress(deflate_cells(places, np.full(2, 255, dtype="u1"), gap + 2, "native"))
        assert inflated == b"\xff" + bytes(gap) + b"\xff"


def test_a_stream_of_nothing_is_short(level):
    stream = deflate_cells(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), 2**22, "native")
    assert len(stream) < 2**24 / 150
    assert zlib.decompress(stream) == bytes(2**24)


def test_what_does_not_fit_is_refused():
    ones = np.ones(2, dtype=np.float32)
    with pytest.raises(DataError, match="2 spots, 2 amounts and counts that sum to 3"):
        sum_spots(np.zeros(2, dtype=int), ones, np.array([3]), 4)
    with pytest.raises(DataError, match="cells 0 to 4; expected 0 to 3"):
        sum_spots(np.array([0, 4]), ones, np.array([2]), 4)
    for places in ([1, 1], [3, 2], [-1, 2], [0, 4]):
        with pytest.raises(DataError, match="must rise from 0 to 3"):
            deflate_cells(np.array(places), ones, 4)
    with pytest.raises(DataError, match="one place a value"):
        deflate_cells(np.array([1]), ones, 4)
