"""Checkpoint files: whole or refused, never wrong."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from sparsegen.errors import DataError, SparsegenError
from sparsegen.training.checkpoint import (
    Checkpoints,
    random_state,
    read_checkpoint,
    set_random_state,
    write_checkpoint,
)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "step-000000003-00.ckpt"
    write_checkpoint(path, {"weight": torch.arange(6.0), "note": None}, {"step": 3, "stage": 0})
    return path


def test_round_trip_and_manifest(path):
    state, manifest = read_checkpoint(path)
    assert torch.equal(state["weight"], torch.arange(6.0))
    assert manifest["step"] == 3
    assert not list(path.parent.glob("*.part"))


def test_every_truncation_is_refused(path):
    data = path.read_bytes()
    for length in [*range(0, len(data), 61), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=path.name):
            read_checkpoint(path)


def test_every_flipped_bit_is_refused(path):
    data = path.read_bytes()
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=path.name):
            read_checkpoint(path)


def test_appended_bytes_are_refused(path):
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="bytes of state where"):
        read_checkpoint(path)


def test_newest_are_kept_and_a_left_over_part_is_ignored(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.read() is None
    for step in (1, 2, 30):
        checkpoints.write({"step": step}, {"step": step, "stage": 0})
    (tmp_path / "step-000000031-00.ckpt.part").write_bytes(b"half")
    assert [p.name for p in checkpoints.paths()] == ["step-000000030-00.ckpt", "step-000000002-00.ckpt"]
    found = checkpoints.read()
    assert found is not None
    assert found[0]["step"] == 30


def test_a_damaged_newest_gives_way_to_the_one_before_and_says_so(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2):
        newest = checkpoints.write({"step": step}, {"step": step, "stage": 0})
    newest.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match=f"{newest.name}.*taking the checkpoint before"):
        found = checkpoints.read()
    assert found is not None
    assert found[0]["step"] == 1


def test_all_damaged_is_an_error(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write({}, {"step": 1, "stage": 0}).write_bytes(b"junk")
    with pytest.warns(RuntimeWarning), pytest.raises(DataError, match="all 1 checkpoints are damaged"):
        checkpoints.read()


def test_a_full_disk_leaves_the_old_file_and_no_part(path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SparsegenError, match="No space left on device; what was there before is intact"):
        write_checkpoint(path, {"weight": torch.zeros(6)}, {"step": 3, "stage": 0})
    assert path.read_bytes() == before
    assert not list(path.parent.glob("*.part"))


def test_random_states_survive_a_weights_only_file(tmp_path):
    def draw():
        return (
            torch.rand(3).tolist(),
            torch.randn(3, generator=generator).tolist(),
            np.random.standard_normal(3).tolist(),  # noqa: NPY002 - the global state is what is tested
            [random.gauss(0, 1) for _ in range(3)],
        )

    generator = torch.Generator().manual_seed(5)
    draw()
    path = tmp_path / "x"
    write_checkpoint(path, random_state(generator), {"step": 0, "stage": 0})
    expected = draw()
    assert draw() != expected
    set_random_state(read_checkpoint(path)[0], generator)
    assert draw() == expected


def test_user_classes_are_refused_on_load(tmp_path):
    path = tmp_path / "x"
    write_checkpoint(path, {"evil": Checkpoints(tmp_path)}, {"step": 0, "stage": 0})
    with pytest.raises(DataError, match="incompatible version"):
        read_checkpoint(path)
