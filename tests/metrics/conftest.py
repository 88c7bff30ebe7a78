import numpy as np
import pytest
import torch

from sparsegen.events import Column, Events


def make_jets(n, seed=0, shift=0.0, mean=20):
    """Jets of a simple law: Poisson multiplicity, falling momenta, Gaussian angles."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(mean, size=n) + 1
    total = int(counts.sum())
    coords = torch.tensor(rng.normal(shift, 0.15, size=(total, 2)), dtype=torch.float32)
    pt = rng.exponential(size=total) ** 2 / (2 * mean)
    offsets = torch.tensor(np.concatenate([[0], np.cumsum(counts)]))
    return Events(
        coords,
        torch.tensor(pt, dtype=torch.float32)[:, None],
        offsets,
        axes=("etarel", "phirel"),
        columns=(Column("ptrel"),),
    )


@pytest.fixture(scope="session")
def jets():
    return make_jets(600, seed=1)


@pytest.fixture(scope="session")
def more_jets():
    return make_jets(600, seed=2)


@pytest.fixture
def make():
    return make_jets
