"""A data set of toy jets with splits, small enough to train on in a second, and one study of it, run once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsegen.data import RaggedWriter
from sparsegen.events import Column, Events
from sparsegen.grid import Grid
from sparsegen.study import Finished, Study, execute


def _toy_events(n: int, seed: int = 0) -> Events:
    """Jets of 3 to 8 hits around the axis."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(3, 9, (n,), generator=generator)
    hits = int(counts.sum())
    return Events(
        torch.randn(hits, 2, generator=generator).clamp(-3, 3) * 0.2,
        torch.rand(hits, 1, generator=generator) + 0.01,
        torch.nn.functional.pad(counts.cumsum(0), (1, 0)),
        axes=("etarel", "phirel"),
        columns=(Column("ptrel"),),
        grid=Grid.regular((8, 8), (-0.8, -0.8), (0.8, 0.8), ("etarel", "phirel")),
    )


@pytest.fixture
def toy_events() -> Callable[..., Events]:
    return _toy_events


@pytest.fixture(scope="session")
def toy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "toy.h5"
    with RaggedWriter(path, splits=("train", "test")) as writer:
        writer.append(_toy_events(240), split=np.repeat([0, 1], [180, 60]))
    return path


@pytest.fixture(scope="session")
def toy_study(toy_file: Path) -> dict[str, Any]:
    """A study in plain types: one model that trains, one that diverges, and the trivial generator."""
    return {
        "title": "Toys & <jets>",
        "data": {"name": f"{toy_file}:train", "shape": [8, 8]},
        "model": [{"name": "vae", "latent": 2, "beta": 0.01}, {"name": "gan", "latent": 2}],
        "network": {"name": "dense", "parameters": 3000},
        "baseline": "independent",
        "training": {"max_steps": 6, "batch": 16, "log_every": 2, "seed": 1, "monitor": 8},
        "overrides": [{"where": {"model": "gan"}, "set": {"training": {"lr": 1e30}}}],
        "evaluation": {
            "reference": f"{toy_file}:test",
            "events": 50,
            "lattice": [8, 8],
            "metrics": ["w1_mass", "w1_occupied", "memorisation"],
        },
    }


@pytest.fixture(scope="session")
def finished(toy_study: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("study") / "report"
    return execute(Study.from_dict(toy_study), folder, processes=2)
