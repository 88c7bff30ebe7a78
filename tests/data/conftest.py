"""Small files in the published layouts, made with h5py and numpy alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sparsegen.events import Column, Events


@pytest.fixture
def make_points() -> Callable[..., Events]:
    def make(events: int = 20, seed: int = 0, largest: int = 9) -> Events:
        generator = torch.Generator().manual_seed(seed)
        counts = torch.randint(0, largest + 1, (events,), generator=generator)
        hits = int(counts.sum())
        return Events(
            torch.rand(hits, 2, generator=generator) * 1.6 - 0.8,
            torch.rand(hits, 1, generator=generator),
            torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
            axes=("etarel", "phirel"),
            columns=(Column("ptrel"),),
            condition=torch.rand(events, 3, generator=generator),
            conditions=("jet_pt", "jet_eta", "jet_mass"),
        )

    return make


@pytest.fixture
def jetnet_file(tmp_path: Path) -> Callable[..., Path]:
    """A JetNet file of 30 particles; jet ``i`` has ``i % 31`` of them, particle ``j`` has ptrel ``(j + 1) / 1024``."""

    def make(jets: int = 70, masked: bool = True, name: str = "t.hdf5") -> Path:
        particles = np.zeros((jets, 30, 4), dtype=np.float32)
        for i in range(jets):
            for j in range(i % 31):
                particles[i, j] = (0.01 * j - 0.1, 0.001 * i, (j + 1) / 1024, 1)
        jet = np.zeros((jets, 4), dtype=np.float32)
        jet[:, 0] = 1000 + np.arange(jets)
        jet[:, 2] = 100
        jet[:, 3] = np.arange(jets) % 31
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            values = particles if masked else particles[..., :3]
            file.create_dataset("particle_features", data=values, chunks=(16, 30, values.shape[2]), compression="gzip")
            file.create_dataset("jet_features", data=jet)
        return path

    return make


@pytest.fixture
def alter() -> Callable[..., None]:
    """Change one value of a dataset in place."""

    def change(path: Path, key: str, index: object, value: object) -> None:
        with h5py.File(path, "r+") as file:
            data = file[key]
            assert isinstance(data, h5py.Dataset)
            data[index] = value

    return change
