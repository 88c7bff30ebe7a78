"""Arrays in NumPy archives and gzipped files are read where they lie, or inflated once, never loaded whole."""

from __future__ import annotations

import gzip
import logging
import multiprocessing
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import sparsegen.data as data
from sparsegen.data import mapped
from sparsegen.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = (RNG.integers(1, 256, (300, 8, 9)) * (RNG.random((300, 8, 9)) < 0.2)).astype("u1")


def plain(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), images=IMAGES, labels=np.arange(300) % 3)
    return path.with_suffix(".npz")


def compressed(path: Path) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), images=IMAGES, labels=np.arange(300) % 3)
    return path.with_suffix(".npz")


def columns_first(path: Path) -> Path:
    np.savez_compressed(path.with_suffix(".npz"), images=np.asfortranarray(IMAGES))
    return path.with_suffix(".npz")


def other_byte_order(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), images=IMAGES.astype(">f4"))
    return path.with_suffix(".npz")


def zipped_idx(path: Path) -> Path:
    path.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, *IMAGES.shape) + IMAGES.tobytes()))
    return path


KINDS = [plain, compressed, columns_first, other_byte_order, zipped_idx]
INFLATED = (compressed, columns_first, zipped_idx)


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every array is too large to be held."""
    monkeypatch.setattr(mapped, "_IN_MEMORY", 0)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("make", KINDS)
def test_values_are_those_of_the_file_and_no_temporary_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, make: Callable[[Path], Path]
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    path = make(tmp_path / "a")
    source = data.open(path)
    scale = np.float32(255 if make is zipped_idx else 1)
    assert np.array_equal(source[:].to_dense()[:, 0].numpy(), IMAGES.astype("f4") / scale)
    assert np.array_equal(source[[7, 299, 7]].to_dense()[:, 0].numpy(), IMAGES[[7, 299, 7]].astype("f4") / scale)
    assert not list((tmp_path / "scratch").iterdir())
    lines = [record.getMessage() for record in caplog.records if "inflated into" in record.getMessage()]
    # Once for the values; labels are small, but here nothing may be held
    assert bool(lines) == (make in INFLATED)
    assert all(str(path) in line and str(tmp_path / "scratch") in line and "\n" not in line for line in lines)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("make", KINDS)
def test_a_copy_reads_the_same_and_inflates_nothing_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], Path]
) -> None:
    source = data.open(make(tmp_path / "a"))
    expected = source[5:9]
    caplog.clear()
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy[5:9].features, expected.features)
    assert not caplog.records


@pytest.mark.usefixtures("small_memory")
def test_a_spawned_worker_reads_the_temporary_file_of_its_parent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = data.open(compressed(tmp_path / "a"))
    expected = source[5:9]
    capfd.readouterr()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        read = pool.apply(source.__getitem__, (slice(5, 9),))
    assert torch.equal(read.coords, expected.coords)
    assert torch.equal(read.features, expected.features)
    assert "inflated" not in capfd.readouterr().err


@pytest.mark.usefixtures("small_memory")
@pytest.mark.parametrize("make", INFLATED)
def test_readers_of_one_process_share_what_was_inflated_until_the_file_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], Path]
) -> None:
    path = make(tmp_path / "a")
    first = data.open(path)
    expected = first[5:9]
    caplog.clear()
    second = data.open(path)
    del first
    # Labels are small outside of this test, and read anew
    assert not [record for record in caplog.records if "'labels'" not in record.getMessage()]
    assert torch.equal(second[5:9].features, expected.features)
    assert torch.equal(pickle.loads(pickle.dumps(second))[5:9].features, expected.features)
    path.unlink()
    exchanged = make(tmp_path / "a")
    os.utime(exchanged, ns=(0, 0))
    caplog.clear()
    data.open(exchanged)
    assert "inflated into" in caplog.text


@pytest.mark.usefixtures("small_memory")
def test_a_pickled_source_outlives_the_process_that_inflated_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = compressed(tmp_path / "a")
    source = data.open(path)
    expected, state = source[5:9], pickle.dumps(source)
    del source
    caplog.set_level(logging.WARNING)
    caplog.clear()
    assert torch.equal(pickle.loads(state)[5:9].features, expected.features)
    assert "inflated into" in caplog.text


@pytest.mark.usefixtures("small_memory")
def test_a_full_temporary_folder_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = compressed(tmp_path / "a")
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(DataError) as caught:
        data.open(path)
    message = str(caught.value)
    for word in (str(path), "array 'images'", "inflated", tempfile.gettempdir(), "set TMPDIR", "store it uncompressed"):
        assert word in message
    assert "\n" not in message


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("make", [plain, compressed, zipped_idx])
def test_a_flipped_bit_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Path], small: bool
) -> None:
    if not small:
        monkeypatch.setattr(mapped, "_IN_MEMORY", 0)
    path = make(tmp_path / "a")
    raw = bytearray(path.read_bytes())
    raw[3000] ^= 4
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        data.open(path)
    assert str(path) in str(caught.value)
    assert "copy" in str(caught.value)


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("rows", [299, 301])
def test_an_archive_whose_array_is_not_as_long_as_it_says_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, small: bool
) -> None:
    if not small:
        monkeypatch.setattr(mapped, "_IN_MEMORY", 0)
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("images.npy", "w") as file:
        head = {"descr": "|u1", "fortran_order": False, "shape": IMAGES.shape}
        np.lib.format.write_array_header_1_0(file, head)
        file.write(np.resize(IMAGES, (rows, 8, 9)).tobytes())
    with pytest.raises(DataError, match=r"a\.npz: not a readable NumPy file \(holds .* expected 21600\); copy"):
        data.open(path)


@pytest.mark.skipif(sys.platform != "linux", reason="limits and /proc are Linux'")
@pytest.mark.parametrize("kind", ["npz", "idx"])
def test_a_file_larger_than_what_a_process_may_hold_is_read_through(tmp_path: Path, kind: str) -> None:
    """A data set of 200 MB in a process that may allocate 120 MB beyond its imports."""
    shape = (50_000, 64, 64)
    blank = bytes(64 * 64 * 1000 - 1)
    path = tmp_path / ("a.npz" if kind == "npz" else "a-images-idx3-ubyte.gz")
    if kind == "npz":
        archive = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
        with archive, archive.open("images.npy", "w", force_zip64=True) as file:
            head = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, head)
            for _ in range(50):
                file.write(b"\x07" + blank)
    else:
        with gzip.open(path, "wb", 1) as zipped:
            zipped.write(struct.pack(">4B3I", 0, 0, 8, 3, *shape))
            for _ in range(50):
                zipped.write(b"\x07" + blank)
    program = (
        "import resource, sys\n"
        "import torch, sparsegen.data as data, sparsegen.kernels\n"
        "torch.set_num_threads(1)\n"
        "now = int(next(line for line in open('/proc/self/status') if line.startswith('VmData')).split()[1]) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (now + 120 * 2**20,) * 2)\n"
        "source = data.open(sys.argv[1])\n"
        "print(sum(len(batch.coords) for batch in source.batches(256, shuffle=True, seed=1)))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["50"]
    assert "inflated into" in run.stderr
