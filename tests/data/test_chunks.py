"""Tables read chunk by chunk are the tables that h5py reads, however they are stored."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from sparsegen.data import chunks
from sparsegen.data.chunks import CACHE_BYTES, ChunkedData

STORED = {
    "contiguous": {},
    "one chunk a band": {"chunks": (8, 50), "compression": "gzip"},
    "small chunks": {"chunks": (8, 7), "compression": "gzip"},
    "uncompressed": {"chunks": (8, 7)},
    "shuffled": {"chunks": (8, 50), "compression": "gzip", "shuffle": True},
    "checked": {"chunks": (8, 7), "compression": "gzip", "fletcher32": True},
    "lzf": {"chunks": (8, 50), "compression": "lzf"},
}


def joined(data: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    parts = [(first, values.copy()) for first, values in ChunkedData(data).column_pieces(start, stop)]
    assert [first for first, _ in parts] == np.cumsum([0] + [v.shape[1] for _, v in parts])[:-1].tolist()
    return np.concatenate([values for _, values in parts], axis=1)


@pytest.mark.parametrize("piece", [1, 600, 2**24])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i2"])
def test_pieces_are_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: str, dtype: str, piece: int
) -> None:
    monkeypatch.setattr(chunks, "_PIECE_BYTES", piece)
    values = np.random.default_rng(0).integers(-9, 9, (37, 50)).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", data=values, **STORED[stored])
        for start, stop in [(0, 8), (8, 16), (32, 37), (0, 37), (5, 6), (6, 20), (3, 3)]:
            assert np.array_equal(joined(data, start, stop), values[start:stop])


@pytest.mark.parametrize(
    "options",
    [{}, {"chunks": (8, 4, 3)}, {"chunks": (8, 5, 4), "compression": "gzip"}, {"chunks": (8, 2, 3), "compression": 4}],
)
def test_blocks_of_any_number_of_axes_are_those_of_h5py(tmp_path: Path, options: dict[str, object]) -> None:
    values = np.random.default_rng(0).random((37, 5, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", data=values, **options)
        for start, stop in [(0, 8), (0, 7), (0, 2), (32, 37), (0, 37), (5, 6), (6, 20), (3, 3)]:
            assert np.array_equal(ChunkedData(data).block([(start, stop)]), values[start:stop])
            out = np.empty((stop - start, 2, 4))
            assert ChunkedData(data).block([(start, stop), (1, 3)], out) is out
            assert np.array_equal(out, values[start:stop, 1:3])


@pytest.mark.parametrize("dtype", [bool, "S3", h5py.string_dtype(), np.dtype([("a", "f4"), ("b", "i8")]), "c8"])
def test_other_types_than_numbers_are_read_as_h5py_does(tmp_path: Path, dtype: object) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", (20,), dtype, chunks=(8,), compression="gzip")
        assert (ChunkedData(data).block([(0, 20)]) == data[:]).all()


def test_what_is_small_is_read_in_order_without_inflating_its_chunk_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inflated = []
    inflate = chunks.zlib.decompress
    monkeypatch.setattr(chunks.zlib, "decompress", lambda *a, **k: inflated.append(1) or inflate(*a, **k))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        small = file.create_dataset("small", data=np.zeros((64, 8)), chunks=(64, 8), compression="gzip")
        large = file.create_dataset("large", data=np.zeros((2, CACHE_BYTES)), chunks=(2, CACHE_BYTES), compression=1)
        for row in range(64):
            ChunkedData(small).block([(row, row + 1)])
        assert not inflated
        ChunkedData(large).block([(1, 2)])
        assert inflated == [1]


def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", (16, 20), "f4", chunks=(8, 10), compression="gzip", fillvalue=3)
        data[:8, :10] = 1
        assert np.array_equal(joined(data, 0, 16), data[:])


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        values = np.random.default_rng(0).random((16, 20))
        data = file.create_dataset("a", data=values, chunks=(8, 20), compression="gzip")
        info = data.id.get_chunk_info(1)
    raw = bytearray(path.read_bytes())
    raw[info.byte_offset + info.size // 2] ^= 1
    path.write_bytes(raw)
    with h5py.File(path) as file:
        assert np.array_equal(joined(file["a"], 0, 8), values[:8])
        with pytest.raises(OSError, match="gzip"):
            joined(file["a"], 8, 16)
